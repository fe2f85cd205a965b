//! The operator's own program with a folder, a state directory and programs of its own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than a broker's start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// An operator under test.
pub(crate) struct Operator {
    directory: TempDir,
    process: Option<Child>,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["resources", "bin"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self {
            directory,
            process: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a program on the operator's PATH, before all others.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path("resources").join(file), text).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.path("resources").join(file)).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
        command
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .args(["run", "--platform", "local", "--resources"])
            .arg(self.path("resources"))
            .arg("--state-dir")
            .arg(self.path("state"));
        command
    }

    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        self.process = Some(self.command().stderr(log).spawn().unwrap());
    }

    /// Starts it by a shell that ends with the returned process.
    pub(crate) fn start_by_parent(&self) -> Child {
        let command = self.command();
        let args = command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned());
        let envs = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let mut parent = Command::new("sh");
        parent
            .args(["-c", "\"$0\" \"$@\" & wait"])
            .arg(command.get_program())
            .args(args)
            .arg("--exit-with-parent")
            .envs(envs)
            .stderr(Stdio::null());
        parent.spawn().unwrap()
    }

    /// Sends a signal and waits for the operator's end.
    pub(crate) fn end(&mut self, signal: &str) {
        let mut process = self.process.take().unwrap();
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(process.id().to_string())
            .status();
        assert!(sent.unwrap().success());
        process.wait().unwrap();
    }

    /// What `operator status -o json` prints.
    pub(crate) fn status(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_operator"))
            .args(["status", "-o", "json", "--state-dir"])
            .arg(self.path("state"))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until `find` finds something in the status.
    pub(crate) fn wait<T>(&self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            let status = self.status();
            if let Some(found) = find(&status) {
                return found;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "never {what}: {status:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Processes whose working directory is below the state directory.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        processes_below(&self.path("state"))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.end("KILL");
        }
        for pid in self.left_behind() {
            let _ = Command::new("kill")
                .args(["-KILL", &pid])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn processes_below(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let below = entries.filter(|entry| {
        std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(state))
    });
    below
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The object of that kind and name.
pub(crate) fn object<'a>(status: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    let items = status["items"].as_array()?;
    items
        .iter()
        .find(|item| item["kind"] == kind && item["metadata"]["name"] == name)
}

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    Some((
        found["status"].as_str()?,
        found["reason"].as_str()?,
        found["message"].as_str()?,
    ))
}

/// Whether an object is as asked for, in its present generation.
pub(crate) fn is_settled(status: &Value, kind: &str, name: &str) -> Option<()> {
    let object = object(status, kind, name)?;
    let observed = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let is = |kind, wanted| condition(object, kind).is_some_and(|(status, ..)| status == wanted);
    (observed && is("Ready", "True") && is("Reconciling", "False") && is("Stalled", "False"))
        .then_some(())
}

/// The process of every instance.
pub(crate) fn processes(status: &Value) -> BTreeMap<String, String> {
    let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
    let instances = workloads
        .iter()
        .flat_map(|w| w["instances"].as_array().cloned().unwrap_or_default());
    let pair = |i: Value| {
        Some((
            i["name"].as_str()?.to_owned(),
            i["process"].as_str()?.to_owned(),
        ))
    };
    instances.filter_map(pair).collect()
}
