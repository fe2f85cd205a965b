//! The conformance suite against processes of this machine, and what is particular to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[macro_use]
mod conformance;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use conformance::{Fixture, Foreign, owner};
use ofa_crds::api::{Resources, Spread, SpreadMode};
use ofa_operator::platform::local::LocalPlatform;
use ofa_operator::platform::local::store::StateDirError;
use ofa_operator::platform::{
    Check, DeploymentPlatform, EnvValue, EnvVar, FileContent, InstanceState, MountedFile, Port,
    Probe, Probes, SecretKey, Stop, StopSignal, UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};
use parking_lot::Mutex;
use tempfile::TempDir;

/// Longer than a busy machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ready 0.2 s after its start, ends on SIGTERM.
const PROGRAM: &str =
    "trap 'exit 0' TERM; sleep 0.2; touch /scratch/ready; while :; do sleep 0.05; done";

struct Local {
    state: TempDir,
}

impl Local {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn platform(&self) -> LocalPlatform {
        LocalPlatform::open(self.state.path()).unwrap()
    }
}

/// A failed test leaves nothing running either.
impl Drop for Local {
    fn drop(&mut self) {
        let state = self.state.path().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let mark = format!("OFA_LOCAL_INSTANCE={state}");
            let ours = environ
                .split(|&b| b == 0)
                .any(|v| v.starts_with(mark.as_bytes()));
            if ours && let Some(pid) = entry.file_name().to_str() {
                signal(pid, "KILL");
            }
        }
    }
}

fn signal(pid: &str, name: &str) {
    let _ = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid)
        .stderr(Stdio::null())
        .status();
}

fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[async_trait]
impl Fixture for Local {
    async fn open(&self) -> Box<dyn DeploymentPlatform> {
        Box::new(self.platform())
    }

    fn workload(&self, name: &str, replicas: u16) -> Workload {
        Workload {
            id: WorkloadId::new("test", name),
            chosen: String::new(),
            owner: owner(name),
            kind: WorkloadKind::Stateless {
                scratch: Some("/scratch".to_owned()),
            },
            image: "sh".to_owned(),
            command: Vec::new(),
            args: vec!["-c".to_owned(), PROGRAM.to_owned()],
            env: vec![EnvVar::of("POD_NAME", EnvValue::PodName)],
            files: Vec::new(),
            ports: Vec::new(),
            probes: Probes {
                readiness: Some(Probe::every(
                    1,
                    Check::Exec {
                        command: vec![
                            "test".to_owned(),
                            "-e".to_owned(),
                            "root/scratch/ready".to_owned(),
                        ],
                    },
                )),
                ..Probes::default()
            },
            replicas,
            spread: Default::default(),
            resources: Default::default(),
            stop: Stop {
                signal: StopSignal::Term,
                grace_seconds: 5,
            },
            update: UpdateStrategy::Rolling,
            services: Vec::new(),
        }
    }

    async fn kill(&self, instance: &InstanceState) {
        signal(instance.process.as_deref().unwrap(), "KILL");
    }

    async fn runs(&self, instance: &InstanceState) -> bool {
        runs(instance.process.as_deref().unwrap())
    }

    async fn foreign(&self) -> Box<dyn Foreign> {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        Box::new(Sleeper(Mutex::new(child)))
    }
}

struct Sleeper(Mutex<Child>);

#[async_trait]
impl Foreign for Sleeper {
    async fn runs(&self) -> bool {
        self.0.lock().try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.lock().kill();
        let _ = self.0.lock().wait();
    }
}

macro_rules! conforms {
    ($($case:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            conformance::$case(&Local::new()).await;
        })*
    };
}

every_case!(conforms[]);

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_named_before_anything_is_changed() {
    fn with_limits(workload: &mut Workload) {
        workload.resources = Resources {
            limits: [("memory".to_owned(), "64Mi".to_owned())].into(),
            ..Resources::default()
        };
    }
    fn with_required_spread(workload: &mut Workload) {
        workload.spread = Spread {
            mode: SpreadMode::Required,
            ..Spread::default()
        };
    }
    fn on_host(workload: &mut Workload) {
        workload.ports = vec![Port {
            host_port: Some(80),
            ..Port::new("http", 80)
        }];
    }
    let unsupported: [(&str, conformance::Change); 3] = [
        ("resources.limits", with_limits),
        ("spread.mode Required", with_required_spread),
        ("ports.hostPort", on_host),
    ];
    conformance::what_cannot_be_done_is_named_before_anything_is_changed(
        &Local::new(),
        &unsupported,
    )
    .await;
}

async fn wait_for(
    platform: &dyn DeploymentPlatform,
    id: &WorkloadId,
    holds: impl Fn(&[InstanceState]) -> bool,
) -> Vec<InstanceState> {
    for _ in 0..600 {
        let state = platform.observe(id).await.unwrap().unwrap();
        if holds(&state.instances) {
            return state.instances;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", platform.observe(id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_cannot_share_a_state_directory() {
    let local = Local::new();
    let first = local.platform();
    let second = LocalPlatform::open(local.state.path());
    assert!(matches!(second, Err(StateDirError::InUse(_))));
    drop(first);
    local.platform();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrecorded_start_is_found_again() {
    let local = Local::new();
    let workload = local.workload("unrecorded", 1);
    let platform = local.platform();
    platform.ensure(&workload).await.unwrap();
    let before = wait_for(&platform, &workload.id, |all| all.iter().any(|i| i.ready)).await;
    drop(platform);
    // As if the operator had been killed between the start and its record.
    let record = local
        .state
        .path()
        .join("workloads/test/unrecorded/workload.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    json["instances"] = serde_json::json!({});
    std::fs::write(&record, json.to_string()).unwrap();

    let platform = local.platform();
    let after = wait_for(&platform, &workload.id, |all| all.iter().any(|i| i.ready)).await;
    assert_eq!(after[0].process, before[0].process);
    platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_leaves_nothing_behind() {
    let local = Local::new();
    let platform = local.platform();
    let mut stubborn = local.workload("stubborn", 1);
    stubborn.args[1] = PROGRAM.replace("trap 'exit 0' TERM", "sleep 600 & trap 'exit 0' TERM");
    platform.ensure(&stubborn).await.unwrap();
    let running = wait_for(&platform, &stubborn.id, |all| all.iter().any(|i| i.ready)).await;
    platform.shutdown().await;
    assert!(!runs(running[0].process.as_deref().unwrap()));
    // A killed child is gone when the kernel has come round to it.
    let begin = std::time::Instant::now();
    while !processes_below(local.state.path()).is_empty() {
        let left = processes_below(local.state.path());
        assert!(
            begin.elapsed() < PATIENCE,
            "children of a process go with it: {left:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn processes_below(state: &Path) -> Vec<String> {
    let in_state = |entry: &std::fs::DirEntry| {
        let cwd = std::fs::read_link(entry.path().join("cwd"));
        cwd.is_ok_and(|cwd| cwd.starts_with(state))
            && runs(entry.file_name().to_str().unwrap_or_default())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(in_state)
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_quotes_the_log() {
    let local = Local::new();
    let platform = local.platform();
    let mut failing = local.workload("failing", 1);
    failing.args[1] = "echo first; echo 'listen: address already in use' >&2; exit 3".to_owned();
    platform.ensure(&failing).await.unwrap();
    let state = wait_for(&platform, &failing.id, |all| all.iter().any(|i| i.stuck)).await;
    let message = state[0].message.clone().unwrap();
    for part in [
        "exit status: 3",
        "3 times in a row",
        "listen: address already in use",
        "change the port",
    ] {
        assert!(message.contains(part), "{message}");
    }
    platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_live_is_restarted() {
    let local = Local::new();
    let platform = local.platform();
    let mut sick = local.workload("sick", 1);
    sick.probes.liveness = Some(Probe {
        failure_threshold: 1,
        initial_delay: 1,
        ..Probe::every(
            1,
            Check::Exec {
                command: vec!["false".to_owned()],
            },
        )
    });
    platform.ensure(&sick).await.unwrap();
    let state = wait_for(&platform, &sick.id, |all| {
        all.iter().any(|i| i.restarts > 0)
    })
    .await;
    assert!(state[0].message.is_some());
    platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_replaces_the_instances_that_use_it() {
    let local = Local::new();
    let platform = local.platform();
    let secret = local.state.path().join("secrets/test/mine");
    let mut workload = local.workload("secretive", 1);
    workload.files = vec![MountedFile {
        path: "/etc/app/password".to_owned(),
        content: FileContent::Secret {
            key: SecretKey {
                secret: "mine".to_owned(),
                key: "password".to_owned(),
            },
            optional: false,
        },
    }];
    platform.ensure(&workload).await.unwrap();
    let missing = wait_for(&platform, &workload.id, |all| all.iter().any(|i| i.stuck)).await;
    assert!(
        missing[0]
            .message
            .as_ref()
            .unwrap()
            .contains("secrets/test/mine/password"),
        "{missing:?}"
    );

    std::fs::create_dir_all(&secret).unwrap();
    std::fs::write(secret.join("password"), "one").unwrap();
    platform.ensure(&workload).await.unwrap();
    let first = wait_for(&platform, &workload.id, |all| all.iter().any(|i| i.ready)).await;
    let file = local
        .state
        .path()
        .join("workloads/test/secretive/0/root/etc/app/password");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");

    std::fs::write(secret.join("password"), "two").unwrap();
    platform.ensure(&workload).await.unwrap();
    wait_for(&platform, &workload.id, |all| {
        all.iter().any(|i| i.ready && i.process != first[0].process)
    })
    .await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
    platform.shutdown().await;
}
