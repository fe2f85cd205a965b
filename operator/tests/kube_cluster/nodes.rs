//! NATS nodes in pods in which nothing runs: their monitoring port answers on the address of the pod.

use std::collections::{BTreeMap, BTreeSet};
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
    let mut answered: BTreeMap<String, AbortOnDropHandle<()>> = BTreeMap::new();
    loop {
        let now = nodes(&pods).await.into_iter();
        let addresses: BTreeSet<String> = now.filter_map(|pod| pod.status?.pod_ip).collect();
        answered.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if answered.contains_key(&address) {
                continue;
            }
            // Another test may not have let go of it yet.
            if let Ok(listener) = TcpListener::bind(format!("{address}:8222")).await {
                let server = tokio::spawn(serve(listener, pods.clone()));
                answered.insert(address, AbortOnDropHandle::new(server));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn serve(listener: TcpListener, pods: Api<Pod>) {
    let router = Router::new()
        .route("/varz", get(varz))
        .route("/routez", get(routez))
        .with_state(pods);
    axum::serve(listener, router).await.unwrap();
}

/// As if every node had taken in its configuration at once.
async fn varz(State(pods): State<Api<Pod>>) -> Json<Value> {
    Json(json!({
        "server_id": "N", "version": "2.15.2", "tags": tags(&pods).await,
        "connections": 0, "total_connections": 0, "slow_consumers": 0,
    }))
}

/// The tags in the configuration of the namespace's shard: tests have one each, or a second that never runs.
async fn tags(pods: &Api<Pod>) -> Vec<String> {
    let namespace = pods
        .resource_url()
        .split('/')
        .nth(4)
        .unwrap_or_default()
        .to_owned();
    let secrets: Api<Secret> = Api::namespaced(pods.clone().into_client(), &namespace);
    let all = ListParams::default().labels("app.kubernetes.io/name=nats-shard");
    let found = secrets
        .list(&all)
        .await
        .map(|list| list.items)
        .unwrap_or_default();
    let texts = found.iter().flat_map(conf_of);
    texts.filter_map(|text| tag_in(&text)).collect()
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

async fn routez(State(pods): State<Api<Pod>>) -> Json<Value> {
    let route = |pod: &Pod| json!({"remote_name": pod.name_any()});
    let routes: Vec<Value> = nodes(&pods).await.iter().map(route).collect();
    Json(json!({ "routes": routes }))
}

async fn nodes(pods: &Api<Pod>) -> Vec<Pod> {
    let shards = ListParams::default().labels("app.kubernetes.io/name=nats-shard");
    pods.list(&shards)
        .await
        .map(|list| list.items)
        .unwrap_or_default()
}
