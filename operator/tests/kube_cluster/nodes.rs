//! NATS nodes in pods in which nothing runs: their monitoring port answers on the address of the pod.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Answers for all nodes of a namespace for as long as it lives.
pub(crate) struct Nodes {
    _answering: AbortOnDropHandle<()>,
}

impl Nodes {
    /// Every node has routes to all pods of the namespace's shards.
    pub(crate) fn answer(client: &Client, namespace: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        Self {
            _answering: AbortOnDropHandle::new(tokio::spawn(answer_all(pods))),
        }
    }
}

/// Addresses of pods that are gone are given to others, which may be another test's.
async fn answer_all(pods: Api<Pod>) {
    let mut answered: BTreeMap<String, (String, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        let all = ListParams::default().labels("app.kubernetes.io/name=nats-shard");
        let now = pods.list(&all).await.map(|list| list.items);
        let now: BTreeMap<String, Node> = now.unwrap_or_default().iter().filter_map(node).collect();
        answered.retain(|address, (pod, _)| now.get(address).is_some_and(|node| node.name == *pod));
        for (address, node) in now {
            if answered.contains_key(&address) {
                continue;
            }
            // Another test may not have let go of it yet.
            if let Ok(listener) = TcpListener::bind(format!("{address}:8222")).await {
                let name = node.name.clone();
                let state = Answers {
                    pods: pods.clone(),
                    shard: node.shard,
                };
                let server = AbortOnDropHandle::new(tokio::spawn(serve(listener, state)));
                answered.insert(address, (name, server));
            }
        }
        // Where there are thousands, to ask for them all is work.
        let pause = 100 + 2 * answered.len() as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// A pod that has an address.
struct Node {
    name: String,
    shard: String,
}

fn node(pod: &Pod) -> Option<(String, Node)> {
    let address = pod.status.as_ref()?.pod_ip.clone()?;
    let shard = pod.labels().get(SHARD)?.clone();
    let name = pod.name_any();
    Some((address, Node { name, shard }))
}

/// Label of a shard's pods.
const SHARD: &str = "fanout.openfactory.io/shard";

#[derive(Clone)]
struct Answers {
    pods: Api<Pod>,
    shard: String,
}

async fn serve(listener: TcpListener, state: Answers) {
    let router = Router::new()
        .route("/varz", get(varz))
        .route("/routez", get(routez))
        .with_state(state);
    axum::serve(listener, router).await.unwrap();
}

/// As if every node had taken in its configuration at once.
async fn varz(State(answers): State<Answers>) -> Json<Value> {
    Json(json!({
        "server_id": "N", "version": "2.15.2", "tags": Vec::from_iter(answers.tags().await),
        "connections": 0, "total_connections": 0, "slow_consumers": 0,
    }))
}

impl Answers {
    /// The tag in the configuration of the shard.
    async fn tags(&self) -> Option<String> {
        let url = self.pods.resource_url();
        let namespace = url.split('/').nth(4).unwrap_or_default();
        let secrets: Api<Secret> = Api::namespaced(self.pods.clone().into_client(), namespace);
        let name = format!("{}-files", self.shard);
        let secret = secrets.get_opt(&name).await.ok().flatten()?;
        tag_in(&conf_of(&secret)?)
    }
}

/// The nats.conf in a secret that has one.
pub(crate) fn conf_of(secret: &Secret) -> Option<String> {
    let data = secret.data.as_ref()?;
    let ByteString(bytes) = data.get("etc__nats__nats.conf")?;
    String::from_utf8(bytes.clone()).ok()
}

fn tag_in(conf: &str) -> Option<String> {
    let tag = conf.split_once("server_tags: [\"")?.1;
    Some(tag.split_once('"')?.0.to_owned())
}

async fn routez(State(answers): State<Answers>) -> Json<Value> {
    let route = |pod: &Pod| json!({"remote_name": pod.name_any()});
    let shard = ListParams::default().labels(&format!("{SHARD}={}", answers.shard));
    let nodes = answers.pods.list(&shard).await.map(|list| list.items);
    let routes: Vec<Value> = nodes.unwrap_or_default().iter().map(route).collect();
    Json(json!({ "routes": routes }))
}
