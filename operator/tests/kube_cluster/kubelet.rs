//! Real NATS nodes for pods in which nothing runs: what a kubelet does, as far as a shard needs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::program;
use crate::nodes::conf_of;

/// Longer than a reload takes, so that the operator asks at least once too early, as with a real kubelet.
const FILES_ARRIVE_AFTER: Duration = Duration::from_secs(2);

/// Runs nats-server for every pod of a namespace's shard, for as long as it lives.
pub(crate) struct Kubelet {
    _running: AbortOnDropHandle<()>,
}

impl Kubelet {
    pub(crate) fn run(client: &Client, namespace: &str) -> Self {
        let pods = Api::namespaced(client.clone(), namespace);
        let secrets = Api::namespaced(client.clone(), namespace);
        Self {
            _running: AbortOnDropHandle::new(tokio::spawn(keep_running(pods, secrets))),
        }
    }
}

struct Node {
    process: Child,
    directory: TempDir,
}

/// What a pod runs ends with it.
impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn keep_running(pods: Api<Pod>, secrets: Api<Secret>) {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    loop {
        let shard = ListParams::default().labels("app.kubernetes.io/name=nats-shard");
        let found = pods
            .list(&shard)
            .await
            .map(|list| list.items)
            .unwrap_or_default();
        let secret = secrets
            .list(&shard)
            .await
            .map(|list| list.items)
            .unwrap_or_default();
        let Some(conf) = secret.iter().find_map(conf_of) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let addresses: BTreeMap<String, String> = found
            .iter()
            .filter_map(|pod| Some((pod.name_any(), pod.status.as_ref()?.pod_ip.clone()?)))
            .collect();
        let conf = with_addresses(&conf, &addresses);
        let alive = |uid: &String| found.iter().any(|pod| pod.uid().as_ref() == Some(uid));
        nodes.retain(|uid, _| alive(uid));
        let (old, new): (Vec<&Pod>, Vec<&Pod>) = found
            .iter()
            .partition(|pod| nodes.contains_key(&pod.uid().unwrap_or_default()));
        for pod in new {
            if let (Some(uid), Some(ip)) = (pod.uid(), addresses.get(&pod.name_any())) {
                nodes.insert(uid, start(&pod.name_any(), ip, &conf));
            }
        }
        let changed = old.iter().any(|pod| {
            let node = &nodes[&pod.uid().unwrap_or_default()];
            std::fs::read_to_string(file(node.directory.path())).unwrap() != conf
        });
        if changed {
            tokio::time::sleep(FILES_ARRIVE_AFTER).await;
            for node in nodes.values() {
                std::fs::write(file(node.directory.path()), &conf).unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("nats.conf")
}

/// There is no DNS: a pod that is there is named by its address, another one by one where nobody is.
fn with_addresses(conf: &str, addresses: &BTreeMap<String, String>) -> String {
    let line = |line: &str| {
        let Some((before, host)) = line.split_once("nats-route://") else {
            return line.to_owned();
        };
        let (user, host) = host.split_once('@').unwrap();
        let pod = host.split_once('.').unwrap().0;
        let address = addresses.get(pod).map_or("127.95.0.1", String::as_str);
        format!("{before}nats-route://{user}@{address}:6222\"")
    };
    conf.lines().map(|text| line(text) + "\n").collect()
}

fn start(name: &str, address: &str, conf: &str) -> Node {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(file(directory.path()), conf).unwrap();
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let process = Command::new(program("nats-server"))
        .arg("--config")
        .arg(file(directory.path()))
        .env("POD_NAME", name)
        .env("BIND_ADDRESS", address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Node { process, directory }
}
