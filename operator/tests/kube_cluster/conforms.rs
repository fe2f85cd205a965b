//! The conformance suite of platforms against a real control plane. Pods are scheduled, replaced and counted for real;
//! what a kubelet says of their containers is said here.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use ofa_operator::platform::kubernetes::KubernetesPlatform;
use ofa_operator::platform::{
    DeploymentPlatform, EnvValue, EnvVar, InstanceState, Owner, Port, ServiceName, ServicePort,
    Stop, StopSignal, UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{client, done, namespace};
use crate::conformance::{self, Fixture, Foreign};
use crate::shard;

struct Kubernetes {
    client: Client,
    namespace: String,
    /// Resources that exist: what belongs to none is garbage to Kubernetes.
    owners: BTreeMap<&'static str, Owner>,
    _kubelet: AbortOnDropHandle<()>,
}

impl Kubernetes {
    async fn new() -> Self {
        let client = client();
        let namespace = namespace(&client).await;
        let mut owners = BTreeMap::new();
        for name in ["mine", "somebody-else"] {
            let paused = json!({"paused": true});
            let resource = shard::create(&client, &namespace, name, paused).await;
            let owner = Owner {
                kind: "NatsShard".to_owned(),
                name: name.to_owned(),
                uid: resource.uid().unwrap(),
            };
            owners.insert(name, owner);
        }
        let pods = Api::namespaced(client.clone(), &namespace);
        Self {
            client,
            namespace,
            owners,
            _kubelet: AbortOnDropHandle::new(tokio::spawn(refuse_to_start(pods))),
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// A program that is not in its image is not started.
async fn refuse_to_start(pods: Api<Pod>) {
    loop {
        let all = pods.list(&ListParams::default()).await;
        for pod in all.map(|all| all.items).unwrap_or_default() {
            let command = pod
                .spec
                .as_ref()
                .and_then(|s| s.containers[0].command.clone());
            let program = command.unwrap_or_default().join(" ");
            let started = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            if program.contains("no-such-program") && started.is_some() {
                let reason = "CreateContainerError";
                let message = format!("{program}: executable file not found in $PATH");
                let waits = json!({"waiting": {"reason": reason, "message": message}});
                let status = status_of(&pod, 0, false, &waits);
                let _ = pods
                    .patch_status(&pod.name_any(), &PatchParams::default(), &status)
                    .await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn status_of(
    pod: &Pod,
    restarts: i32,
    ready: bool,
    state: &serde_json::Value,
) -> Patch<serde_json::Value> {
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let ready_now = if ready { "True" } else { "False" };
    Patch::Strategic(json!({"status": {
        "conditions": [{"type": "Ready", "status": ready_now}],
        "containerStatuses": [{"name": container.name, "image": container.image, "imageID": "",
            "ready": ready, "restartCount": restarts, "state": state}],
    }}))
}

#[async_trait]
impl Fixture for Kubernetes {
    async fn open(&self) -> Box<dyn DeploymentPlatform> {
        let namespaces = vec![self.namespace.clone()];
        Box::new(KubernetesPlatform::new(self.client.clone(), namespaces))
    }

    fn workload(&self, name: &str, replicas: u16) -> Workload {
        Workload {
            id: WorkloadId::new(self.namespace.as_str(), name),
            owner: self.owner("mine"),
            chosen: String::new(),
            // Only such instances can be told from each other by their order.
            kind: WorkloadKind::Stateful { data: None },
            image: "program:1".to_owned(),
            command: Vec::new(),
            args: vec!["run".to_owned()],
            env: vec![EnvVar::of("POD_NAME", EnvValue::PodName)],
            files: Vec::new(),
            ports: vec![Port::new("http", 80)],
            probes: Default::default(),
            replicas,
            spread: Default::default(),
            resources: Default::default(),
            stop: Stop {
                signal: StopSignal::Term,
                grace_seconds: 5,
            },
            update: UpdateStrategy::Rolling,
            services: vec![ServiceName {
                name: name.to_owned(),
                headless: true,
                ports: vec![ServicePort {
                    name: "http".to_owned(),
                    port: 80,
                    target: 80,
                }],
            }],
        }
    }

    fn owner(&self, name: &str) -> Owner {
        let owner = self.owners.get(name);
        owner.unwrap_or(&self.owners["mine"]).clone()
    }

    /// The controllers watch the objects themselves.
    fn tells_of_changes(&self) -> bool {
        false
    }

    /// As a kubelet tells of a program that has ended and was started again.
    async fn kill(&self, instance: &InstanceState) {
        let pod = self.pods().get(&instance.name).await.unwrap();
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let status = status_of(&pod, 1, true, &running);
        let params = PatchParams::default();
        let pods = self.pods();
        let told = pods.patch_status(&instance.name, &params, &status).await;
        told.unwrap();
    }

    async fn runs(&self, instance: &InstanceState) -> bool {
        let pod = self.pods().get_opt(&instance.name).await.unwrap();
        pod.is_some_and(|pod| pod.uid() == instance.process)
    }

    async fn foreign(&self) -> Box<dyn Foreign> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let labels = json!({"app": "theirs"});
        let deployment = json!({"metadata": {"name": "theirs"}, "spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
        }});
        let deployment = serde_json::from_value(deployment).unwrap();
        let created = api.create(&PostParams::default(), &deployment).await;
        created.unwrap();
        Box::new(Theirs(api))
    }
}

struct Theirs(Api<Deployment>);

#[async_trait]
impl Foreign for Theirs {
    async fn runs(&self) -> bool {
        self.0.get_opt("theirs").await.unwrap().is_some()
    }
}

macro_rules! conforms {
    ($($case:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            let fixture = Kubernetes::new().await;
            conformance::$case(&fixture).await;
            done(&fixture.client, &fixture.namespace).await;
        })*
    };
}

every_case!(conforms[]);

#[tokio::test]
async fn what_cannot_be_done_is_named_before_anything_is_changed() {
    let fixture = Kubernetes::new().await;
    let unsupported: [(&str, conformance::Change); 1] = [("owner", |workload| {
        workload.owner.kind = "Deployment".to_owned();
    })];
    let named = conformance::what_cannot_be_done_is_named_before_anything_is_changed;
    named(&fixture, &unsupported).await;
    done(&fixture.client, &fixture.namespace).await;
}
