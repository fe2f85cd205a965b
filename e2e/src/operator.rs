//! The operator on this machine as a process: it puts up shards and forwarders itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kafka::Broker;
use crate::process::Process;
use crate::scene::Scene;
use crate::{tools, wait};

/// How long everything may take to be up: nodes, then a map, then forwarders that acknowledge it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it may take to stop everything it has started.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

const SHARD: &str = "
apiVersion: fanout.openfactory.io/v1alpha1
kind: NatsShard
metadata: { name: NAME, namespace: factory, labels: { plant: p } }
spec: { nodes: 2 }
";

const POOL: &str = "
apiVersion: fanout.openfactory.io/v1alpha1
kind: ForwarderPool
metadata: { name: pool, namespace: factory }
spec:
  kafka: { bootstrapServers: \"BROKER\" }
  source: { topic: TOPIC }
  consumerGroup: GROUP
  shardSelector: { matchLabels: { plant: p } }
  replicas: 2
";

/// File and manifest of a shard of two nodes, which the pool of [`pool`] selects.
#[must_use]
pub fn shard(name: &str) -> (String, String) {
    (format!("{name}.yaml"), SHARD.replace("NAME", name))
}

/// File and manifest of a pool of two forwarders of a scenario's topic: `factory.pool`.
#[must_use]
pub fn pool(scene: &Scene, broker: &Broker) -> (String, String) {
    let manifest = POOL
        .replace("BROKER", &broker.address())
        .replace("TOPIC", scene.topic())
        .replace("GROUP", scene.group());
    ("pool.yaml".to_owned(), manifest)
}

/// An operator with its folder of resources and its state.
#[derive(Debug)]
pub struct Operator {
    folder: PathBuf,
    process: Option<Process>,
}

impl Operator {
    /// Starts an operator of these resources (file name and YAML) with its state below `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(folder: &Path, resources: &[(impl AsRef<Path>, String)]) -> Result<Self> {
        let mut operator = Self {
            folder: folder.to_owned(),
            process: None,
        };
        std::fs::create_dir(operator.resources()).context("the folder of resources")?;
        for (name, yaml) in resources {
            std::fs::write(operator.resources().join(name), yaml)?;
        }
        operator.run()?;
        Ok(operator)
    }

    /// Starts it, the first time or again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self) -> Result<()> {
        let mut command = tools::own("operator")?;
        command
            .env("PATH", tools::search_path()?)
            .args(["run", "--platform", "local", "--resources"])
            .arg(self.resources())
            .arg("--state-dir")
            .arg(self.state());
        self.process = Some(Process::start("operator", &self.folder, command)?);
        Ok(())
    }

    /// `kill -9` of the operator alone.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the operator does not run")?
            .kill()
    }

    /// SIGTERM: it stops what it has started, and ends.
    ///
    /// # Errors
    /// When it does not end within 40 s.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the operator does not run")?;
        process.terminate(STOP_TIMEOUT).await?;
        Ok(())
    }

    /// Waits until every resource is as asked for.
    ///
    /// # Errors
    /// When one is not within a minute.
    pub async fn wait_settled(&self) -> Result<()> {
        wait::until("all resources to be ready", SETTLE_TIMEOUT, async || {
            let status = self.status()?;
            let items = status["items"].as_array().cloned().unwrap_or_default();
            Ok(!items.is_empty() && items.iter().all(is_settled))
        })
        .await
        .with_context(|| format!("{:#}", self.status().unwrap_or_default()["items"]))
    }

    /// The process id of every instance, by the instance's name.
    ///
    /// # Errors
    /// When the status cannot be read.
    pub fn processes(&self) -> Result<BTreeMap<String, String>> {
        let status = self.status()?;
        let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
        let instances = workloads
            .iter()
            .flat_map(|it| it["instances"].as_array().cloned().unwrap_or_default());
        let pair = |instance: Value| {
            let text = |name| Some(instance[name].as_str()?.to_owned());
            Some((text("name")?, text("process")?))
        };
        Ok(instances.filter_map(pair).collect())
    }

    /// Puts a file of resources into the folder, or another one in its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        Ok(std::fs::write(self.resources().join(name), yaml)?)
    }

    /// Takes a file of resources out of the folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.resources().join(name))?)
    }

    /// What `operator status` tells.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn status(&self) -> Result<Value> {
        let output = tools::own("operator")?
            .args(["status", "-o", "json", "--state-dir"])
            .arg(self.state())
            .output()
            .context("operator status")?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn resources(&self) -> PathBuf {
        self.folder.join("resources")
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }
}

/// Whether an object of `operator status` is as asked for, in its present generation.
#[must_use]
pub fn is_settled(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let is = |kind: &str, wanted: &str| {
        conditions.is_some_and(|all| {
            all.iter()
                .any(|it| it["type"] == kind && it["status"] == wanted)
        })
    };
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
        && is("Ready", "True")
        && is("Stalled", "False")
}
