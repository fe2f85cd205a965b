//! The Swarm backend as the conformance suite wants it.

use std::path::PathBuf;

use async_trait::async_trait;
use ofa_operator::platform::swarm::{SwarmArgs, SwarmPlatform};
use ofa_operator::platform::{
    Check, DeploymentPlatform, EnvValue, EnvVar, InstanceState, Probe, Probes, Stop, StopSignal,
    UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};
use tempfile::TempDir;

use crate::cluster::{Cluster, IMAGE};
use crate::conformance::{Fixture, Foreign, owner};

/// Ready 0.2 s after its start, ends on SIGTERM.
const PROGRAM: &str =
    "trap 'exit 0' TERM; sleep 0.2; touch /scratch/ready; while :; do sleep 0.05; done";

/// One test's operator: it shares the Swarm with others and sees nothing of theirs.
pub(crate) struct Swarm {
    pub(crate) cluster: &'static Cluster,
    test: &'static str,
    secrets: TempDir,
}

impl Swarm {
    pub(crate) fn new(cluster: &'static Cluster, test: &'static str) -> Self {
        Self {
            cluster,
            test,
            secrets: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn args(&self) -> SwarmArgs {
        SwarmArgs {
            docker_host: self.cluster.engine(1),
            network: "factory-net".to_owned(),
            installation: self.test.to_owned(),
            secrets: self.secrets.path().to_owned(),
        }
    }

    pub(crate) async fn platform(&self) -> SwarmPlatform {
        SwarmPlatform::open(&self.args()).await.unwrap()
    }

    /// File of a value of a user's secret.
    pub(crate) fn secret_file(&self, namespace: &str, secret: &str, key: &str) -> PathBuf {
        let folder = self.secrets.path().join(namespace).join(secret);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join(key)
    }

    /// Nothing of the test stays on the shared Swarm.
    pub(crate) async fn clean(&self) {
        let platform = self.platform().await;
        for state in platform.list().await.unwrap() {
            platform.remove(&state.id).await.unwrap();
        }
    }

    /// The container of a task, by the node it runs on.
    pub(crate) fn container(&self, task: &str) -> Option<(usize, String)> {
        (1..=3).find_map(|node| {
            let filter = format!("label=com.docker.swarm.task.id={task}");
            let found = self
                .cluster
                .docker(node, &["ps", "--quiet", "--filter", &filter]);
            (!found.is_empty()).then_some((node, found))
        })
    }
}

#[async_trait]
impl Fixture for Swarm {
    async fn open(&self) -> Box<dyn DeploymentPlatform> {
        Box::new(self.platform().await)
    }

    fn workload(&self, name: &str, replicas: u16) -> Workload {
        Workload {
            id: WorkloadId::new("test", name),
            owner: owner(name),
            chosen: String::new(),
            kind: WorkloadKind::Stateless {
                scratch: Some("/scratch".to_owned()),
            },
            image: IMAGE.to_owned(),
            command: vec!["sh".to_owned()],
            args: vec!["-c".to_owned(), PROGRAM.to_owned()],
            env: vec![EnvVar::of("POD_NAME", EnvValue::PodName)],
            files: Vec::new(),
            ports: Vec::new(),
            probes: Probes {
                readiness: Some(Probe::every(
                    1,
                    Check::Exec {
                        command: ["test", "-e", "/scratch/ready"].map(str::to_owned).into(),
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
        let task = instance.process.as_deref().unwrap();
        let (node, container) = self.container(task).unwrap();
        self.cluster.docker(node, &["kill", &container]);
    }

    async fn runs(&self, instance: &InstanceState) -> bool {
        self.container(instance.process.as_deref().unwrap())
            .is_some()
    }

    async fn foreign(&self) -> Box<dyn Foreign> {
        let name = format!("foreign-{}", self.test.replace('_', "-"));
        let create = [
            "service",
            "create",
            "--quiet",
            "--detach",
            "--no-resolve-image",
            "--name",
            &name,
            "--entrypoint",
            "sleep",
            IMAGE,
            "600",
        ];
        self.cluster.docker(1, &create);
        Box::new(ForeignService {
            cluster: self.cluster,
            name,
        })
    }
}

struct ForeignService {
    cluster: &'static Cluster,
    name: String,
}

#[async_trait]
impl Foreign for ForeignService {
    async fn runs(&self) -> bool {
        let format = ["service", "ls", "--format", "{{.Name}}"];
        let services = self.cluster.docker(1, &format);
        services.lines().any(|name| name == self.name)
    }
}

impl Drop for ForeignService {
    fn drop(&mut self) {
        self.cluster.docker(1, &["service", "rm", &self.name]);
    }
}
