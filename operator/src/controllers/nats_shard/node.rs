//! What the nodes of a shard say about themselves on their monitoring ports.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::conf::{DIGEST_TAG, MONITOR_PORT};
use crate::platform::{InstanceState, WorkloadState};

/// A node that serves answers its monitoring port at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its ordinal.
    pub ordinal: u16,
    /// Its name.
    pub name: String,
    /// What nats-server calls itself, anew at each start.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Names of the nodes it has routes to.
    pub routes: BTreeSet<String>,
    /// Digest of the configuration it runs, unless it was made by somebody else.
    pub config: Option<String>,
    /// Clients that are connected.
    pub connections: u64,
    /// Clients that have ever connected.
    pub total_connections: u64,
    /// Clients that were disconnected because they were too slow.
    pub slow_consumers: u64,
}

#[derive(Deserialize)]
struct Varz {
    server_id: String,
    version: String,
    #[serde(default)]
    tags: Vec<String>,
    connections: u64,
    total_connections: u64,
    slow_consumers: u64,
}

#[derive(Deserialize)]
struct Routez {
    routes: Vec<Route>,
}

#[derive(Deserialize)]
struct Route {
    remote_name: Option<String>,
}

/// Asks all nodes; those that do not answer are left out.
pub async fn ask_all(state: &WorkloadState, http: &reqwest::Client) -> Vec<NodeView> {
    let ready = state.instances.iter().filter(|instance| instance.ready);
    let asked = ready.map(|instance| ask(instance, http));
    let answers = futures::future::join_all(asked).await;
    answers.into_iter().flatten().collect()
}

/// Asks one node; `None` when it does not answer.
pub async fn ask(instance: &InstanceState, http: &reqwest::Client) -> Option<NodeView> {
    let base = format!("http://{}:{MONITOR_PORT}", instance.host);
    let varz: Varz = get(http, &format!("{base}/varz")).await?;
    let routez: Routez = get(http, &format!("{base}/routez")).await?;
    let names = routez.routes.into_iter();
    let mut tags = varz.tags.iter();
    let config = tags.find_map(|tag| tag.strip_prefix(DIGEST_TAG));
    Some(NodeView {
        ordinal: instance.ordinal,
        name: instance.name.clone(),
        config: config.map(str::to_owned),
        id: varz.server_id,
        version: varz.version,
        routes: names.filter_map(|route| route.remote_name).collect(),
        connections: varz.connections,
        total_connections: varz.total_connections,
        slow_consumers: varz.slow_consumers,
    })
}

async fn get<T: serde::de::DeserializeOwned>(http: &reqwest::Client, url: &str) -> Option<T> {
    let response = http.get(url).timeout(PATIENCE).send().await.ok()?;
    response.error_for_status().ok()?.json().await.ok()
}
