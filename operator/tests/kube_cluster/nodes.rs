//! NATS nodes in pods in which nothing runs: their monitoring port answers on the address of the pod.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Answers for all nodes of a namespace for as long as it lives.
pub(crate) struct Nodes(JoinHandle<()>);

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Nodes {
    /// Every node has routes to all pods of the namespace's shards.
    pub(crate) fn answer(client: &Client, namespace: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        Self(tokio::spawn(answer_all(pods)))
    }
}

async fn answer_all(pods: Api<Pod>) {
    let mut answered = BTreeSet::new();
    let mut servers = tokio::task::JoinSet::new();
    loop {
        for pod in nodes(&pods).await {
            let address = pod.status.and_then(|status| status.pod_ip);
            let Some(address) = address.filter(|address| answered.insert(address.clone())) else {
                continue;
            };
            let listener = TcpListener::bind(format!("{address}:8222")).await.unwrap();
            let router = Router::new()
                .route(
                    "/varz",
                    get(|| async { Json(json!({"version": "2.15.2"})) }),
                )
                .route("/routez", get(routez))
                .with_state(pods.clone());
            servers.spawn(async move { axum::serve(listener, router).await });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
