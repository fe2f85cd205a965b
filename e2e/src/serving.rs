//! The program `serving` as a process: the router, the replay service, and groups' services.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::Process;
use crate::{http, ports, tools, wait};

/// How long it may take until it has read what it needs.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Name and value of an environment variable.
type Variable = (String, String);

/// How long an orderly stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A program that answers by HTTP, always at the same address.
#[derive(Debug)]
pub struct Serving {
    name: String,
    command: &'static str,
    address: SocketAddr,
    variables: Vec<Variable>,
    folder: PathBuf,
    process: Option<Process>,
}

impl Serving {
    /// A router of these shards (name, and URLs separated by commas), which may know a replay service.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn router(
        shards: &[(String, String)],
        replay: Option<&Self>,
        folder: &Path,
    ) -> Result<Self> {
        Self::router_with(of_shards(shards), replay, folder).await
    }

    /// A router that follows a pool's shard map, and may know a replay service.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn router_of_pool(
        broker: &str,
        pool: &str,
        replay: Option<&Self>,
        folder: &Path,
    ) -> Result<Self> {
        let variables = vec![
            variable("KAFKA_BROKER", broker),
            variable("FORWARDER_POOL", pool),
            // One that is started again is the same one.
            variable("APP_UUID", "router"),
        ];
        Self::router_with(variables, replay, folder).await
    }

    /// A router of groups whose services a file names.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn router_of_groups(broker: &str, services: &Path, folder: &Path) -> Result<Self> {
        let variables = vec![
            variable("KAFKA_BROKER", broker),
            variable("GROUP_SERVICES", &services.display().to_string()),
            // Groups are asked for, and no shard.
            variable("NATS_CLUSTER_C1", "nats://127.0.0.1:1"),
        ];
        Self::router_with(variables, None, folder).await
    }

    async fn router_with(
        mut variables: Vec<Variable>,
        replay: Option<&Self>,
        folder: &Path,
    ) -> Result<Self> {
        variables.extend(replay.map(|replay| variable("REPLAY_URL", &replay.url())));
        Self::start("router", variables, folder).await
    }

    /// A replay service for a topic and these shards (name, and URLs separated by commas).
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn replay(
        broker: &str,
        topic: &str,
        shards: &[(String, String)],
        folder: &Path,
    ) -> Result<Self> {
        Self::replay_with(broker, topic, of_shards(shards), folder).await
    }

    /// A replay service for a topic that follows a pool's shard map.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn replay_of_pool(
        broker: &str,
        topic: &str,
        pool: &str,
        folder: &Path,
    ) -> Result<Self> {
        let follows = vec![variable("FORWARDER_POOL", pool)];
        Self::replay_with(broker, topic, follows, folder).await
    }

    /// A replay service where forwarders publish a topic's records byte by byte.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn replay_verbatim(
        broker: &str,
        topic: &str,
        shards: &[(String, String)],
        folder: &Path,
    ) -> Result<Self> {
        let mut variables = of_shards(shards);
        variables.push(variable("PAYLOAD", "Verbatim"));
        Self::replay_with(broker, topic, variables, folder).await
    }

    async fn replay_with(
        broker: &str,
        topic: &str,
        mut variables: Vec<Variable>,
        folder: &Path,
    ) -> Result<Self> {
        variables.push(variable("KAFKA_BROKER", broker));
        variables.push(variable("KAFKA_TOPIC", topic));
        Self::start("replay", variables, folder).await
    }

    /// An instance of a group's service for a derived topic, with further variables. It does not run yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn group(
        name: &str,
        broker: &str,
        topic: &str,
        further: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Self> {
        let usual = [
            ("ASSET_GROUP", "Weld"),
            ("GROUP_TOPIC", topic),
            ("KAFKA_BROKER", broker),
            ("APP_UUID", name),
        ];
        let all = usual.iter().chain(further);
        let variables = all.map(|(name, value)| variable(name, value)).collect();
        Self::new(name, "group", variables, folder)
    }

    async fn start(command: &'static str, variables: Vec<Variable>, folder: &Path) -> Result<Self> {
        let mut serving = Self::new(command, command, variables, folder)?;
        serving.run()?;
        serving.wait_ready().await?;
        Ok(serving)
    }

    fn new(
        name: &str,
        command: &'static str,
        mut variables: Vec<Variable>,
        folder: &Path,
    ) -> Result<Self> {
        let address = ports::free()?;
        variables.push(variable("BIND_ADDRESS", &address.ip().to_string()));
        variables.push(variable("PORT", &address.port().to_string()));
        Ok(Self {
            name: name.to_owned(),
            command,
            address,
            variables,
            folder: folder.to_owned(),
            process: None,
        })
    }

    /// Starts it, again if it was killed; it is not waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self) -> Result<()> {
        let mut command = tools::own("serving")?;
        command
            .arg(self.command)
            .envs(self.variables.iter().cloned());
        self.process = Some(Process::start(&self.name, &self.folder, command)?);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it is not within half a minute.
    pub async fn wait_ready(&self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        wait::until(&what, READY_TIMEOUT, async || {
            let answer = http::get(self.address, "/ready").await;
            Ok(answer.is_ok_and(|(status, _)| status == 200))
        })
        .await
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.take()?.kill()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end within 15 s, or with a failure.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.take()?.terminate(STOP_TIMEOUT).await?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    fn take(&mut self) -> Result<Process> {
        let process = self.process.take();
        process.with_context(|| format!("{} does not run", self.name))
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let (_, text) = http::get(self.address, "/metrics").await?;
        Ok(http::metric(&text, name, labels))
    }
}

/// Shards as programs take them from their environment.
fn of_shards(shards: &[(String, String)]) -> Vec<Variable> {
    shards
        .iter()
        .map(|(name, urls)| variable(&format!("NATS_CLUSTER_{name}"), urls))
        .collect()
}

fn variable(name: &str, value: &str) -> Variable {
    (name.to_owned(), value.to_owned())
}
