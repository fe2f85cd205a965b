//! The operator as a child process, and what it says about the instances.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tracing::warn;

/// How long the operator may take to stop everything: Kafka's grace period, and to spare.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);

/// One instance, as `operator status` tells.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) ready: bool,
    /// Whether it ended again and again.
    pub(crate) stuck: bool,
    pub(crate) message: Option<String>,
}

/// What the operator keeps running for one resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Workload {
    id: WorkloadId,
    owner: Owner,
    wanted: usize,
    pub(crate) instances: Vec<Instance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct WorkloadId {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Owner {
    kind: String,
}

/// What the operator says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Status {
    pub(crate) workloads: Vec<Workload>,
    /// Problems with the resources' files.
    pub(crate) problems: Vec<serde_json::Value>,
}

impl Status {
    /// Address of an instance of the workload, if one is ready.
    pub(crate) fn host_of(&self, workload: &str) -> Option<&str> {
        let found = self.workloads.iter().find(|it| it.id.name == workload)?;
        let ready = found.instances.iter().find(|it| it.ready)?;
        Some(&ready.host)
    }

    /// All forwarders.
    pub(crate) fn forwarders(&self) -> impl Iterator<Item = &Instance> {
        let pools = self
            .workloads
            .iter()
            .filter(|it| it.owner.kind == "ForwarderPool");
        pools.flat_map(|it| &it.instances)
    }

    /// Whether everything runs that is wanted.
    pub(crate) fn is_settled(&self) -> bool {
        !self.workloads.is_empty() && self.workloads.iter().all(Workload::is_settled)
    }

    /// Names of what is not ready yet.
    pub(crate) fn waiting_for(&self) -> Vec<&str> {
        let unsettled = self.workloads.iter().filter(|it| !it.is_settled());
        unsettled.map(|it| it.id.name.as_str()).collect()
    }

    /// What needs somebody's help: instances that end again and again, files that cannot be used.
    pub(crate) fn trouble(&self) -> Vec<String> {
        let instances = self.workloads.iter().flat_map(|it| &it.instances);
        let stuck = instances.filter(|it| it.stuck).map(|it| {
            let message = it.message.as_deref().unwrap_or("it does not start");
            format!("{}: {message}", it.name)
        });
        stuck
            .chain(self.problems.iter().map(ToString::to_string))
            .collect()
    }
}

impl Workload {
    fn is_settled(&self) -> bool {
        self.instances.len() == self.wanted && self.instances.iter().all(|it| it.ready)
    }
}

/// A running operator. All its processes end with it.
pub(crate) struct Operator {
    child: Child,
    program: PathBuf,
    state: PathBuf,
}

impl Operator {
    /// Starts it with a fresh state directory.
    pub(crate) fn start(resources: &Path, state: &Path) -> anyhow::Result<Self> {
        let program = program();
        let log = state.join("operator.log");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(&program)
            .args(["run", "--platform", "local", "--exit-with-parent", "--resources"])
            .arg(resources)
            .arg("--state-dir")
            .arg(state)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}; build it with `cargo build --release --bins`, or put it on PATH",
                    program.display()
                )
            })?;
        Ok(Self {
            child,
            program,
            state: state.to_owned(),
        })
    }

    /// Asks how things are. An operator that is still starting has nothing to say.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) async fn status(&mut self) -> anyhow::Result<Status> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the operator ended ({status}):\n{}",
                self.last_words().unwrap_or_default()
            );
        }
        let output = Command::new(&self.program)
            .args(["status", "--output", "json", "--state-dir"])
            .arg(&self.state)
            .stdin(Stdio::null())
            .output()
            .await
            .context("cannot ask the operator for its status")?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// Ends it, and with it everything it runs.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            warn!(%error, "the operator cannot be asked to end");
        }
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "the operator's end is not known"),
            Err(_) => {
                warn!(state = %self.state.display(), "the operator does not end; its processes may still run");
            }
        }
    }

    /// The end of its log.
    fn last_words(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.state.join("operator.log")).ok()?;
        let lines: Vec<&str> = log.lines().collect();
        Some(lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

/// The one built together with this program, else the one on PATH.
fn program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("operator"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("operator"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{
        "workloads": [
            {"id": {"namespace": "factory", "name": "kafka"}, "owner": {"kind": "StatefulSet", "name": "kafka", "uid": "1"},
             "wanted": 1, "instances": [{"name": "kafka-0", "ordinal": 0, "host": "127.64.0.1", "phase": "Running",
             "ready": true, "current": true, "restarts": 0, "stuck": false, "process": "1", "message": null}]},
            {"id": {"namespace": "factory", "name": "forwarders"}, "owner": {"kind": "ForwarderPool", "name": "forwarders", "uid": "2"},
             "wanted": 2, "instances": [{"name": "forwarders-0", "ordinal": 0, "host": "127.64.0.2", "phase": "BackOff",
             "ready": false, "current": true, "restarts": 3, "stuck": true, "process": null, "message": "it ended"}]}
        ],
        "problems": []
    }"#;

    #[test]
    fn the_status_tells_addresses_and_trouble() {
        let status: Status = serde_json::from_str(STATUS).unwrap();
        assert_eq!(status.host_of("kafka"), Some("127.64.0.1"));
        assert_eq!(status.host_of("forwarders"), None);
        assert_eq!(status.forwarders().count(), 1);
        assert!(!status.is_settled());
        assert_eq!(status.waiting_for(), ["forwarders"]);
        assert_eq!(status.trouble(), ["forwarders-0: it ended"]);
    }
}
