//! The gate a rolling change passes: one node at a time, the next only when the shard is whole again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::conf::MONITOR_PORT;
use super::validate::{OLDEST, Version};
use crate::platform::{InstanceState, Phase, WorkloadState};

/// A node that serves answers its monitoring port at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its ordinal.
    pub ordinal: u16,
    /// Its version.
    pub version: String,
    /// Names of the nodes it has routes to.
    pub routes: BTreeSet<String>,
}

/// What the gate lets happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Every node runs what it should and all are connected.
    Whole,
    /// Nothing may be restarted yet.
    Wait(String),
    /// This node may be restarted.
    Restart(u16),
    /// Somebody must help.
    Refuse(String),
}

/// Decides by what the platform and the nodes say.
#[must_use]
pub fn gate(state: &WorkloadState, nodes: &[NodeView]) -> Gate {
    if let Some(refusal) = too_old(nodes) {
        return Gate::Refuse(refusal);
    }
    let moving = state.instances.iter().find(|i| i.phase != Phase::Running);
    let broken = state
        .instances
        .iter()
        .find(|i| i.phase == Phase::Running && !i.ready && !i.current);
    // A node that serves nobody loses nobody by a restart.
    if let (None, Some(broken)) = (moving, broken) {
        return Gate::Restart(broken.ordinal);
    }
    if let Some(instance) = state.instances.iter().find(|i| !i.ready) {
        let why = instance.message.as_ref();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return Gate::Wait(format!("{} is not ready{why}", instance.name));
    }
    if state.instances.len() != usize::from(state.wanted) {
        return Gate::Wait(format!(
            "{} of {} nodes exist",
            state.instances.len(),
            state.wanted
        ));
    }
    if let Some(missing) = missing_route(state, nodes) {
        return Gate::Wait(missing);
    }
    match state
        .instances
        .iter()
        .rev()
        .find(|instance| !instance.current)
    {
        Some(outdated) => Gate::Restart(outdated.ordinal),
        None => Gate::Whole,
    }
}

fn too_old(nodes: &[NodeView]) -> Option<String> {
    let old = nodes.iter().find(|node| {
        node.version
            .parse::<Version>()
            .is_ok_and(|version| version < OLDEST)
    })?;
    Some(format!(
        "node {} runs nats-server {}, which has published security advisories; install {OLDEST} or newer",
        old.ordinal, old.version
    ))
}

fn missing_route(state: &WorkloadState, nodes: &[NodeView]) -> Option<String> {
    for instance in &state.instances {
        let Some(node) = nodes.iter().find(|node| node.ordinal == instance.ordinal) else {
            return Some(format!(
                "{} does not answer on its monitoring port",
                instance.name
            ));
        };
        let others = state
            .instances
            .iter()
            .filter(|other| other.ordinal != instance.ordinal);
        let mut lacking = others.filter(|other| !node.routes.contains(&other.name));
        if let Some(other) = lacking.next() {
            return Some(format!("{} has no route to {}", instance.name, other.name));
        }
    }
    None
}

/// Asks all nodes; those that do not answer are left out.
pub async fn ask_nodes(state: &WorkloadState, http: &reqwest::Client) -> Vec<NodeView> {
    let asked = state
        .instances
        .iter()
        .filter(|i| i.ready)
        .map(|instance| ask(instance, http));
    futures::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .collect()
}

async fn ask(instance: &InstanceState, http: &reqwest::Client) -> Option<NodeView> {
    #[derive(Deserialize)]
    struct Varz {
        version: String,
    }
    #[derive(Deserialize)]
    struct Routez {
        routes: Vec<Route>,
    }
    #[derive(Deserialize)]
    struct Route {
        remote_name: Option<String>,
    }
    let base = format!("http://{}:{MONITOR_PORT}", instance.host);
    let varz: Varz = get(http, &format!("{base}/varz")).await?;
    let routez: Routez = get(http, &format!("{base}/routez")).await?;
    Some(NodeView {
        ordinal: instance.ordinal,
        version: varz.version,
        routes: routez
            .routes
            .into_iter()
            .filter_map(|route| route.remote_name)
            .collect(),
    })
}

async fn get<T: serde::de::DeserializeOwned>(http: &reqwest::Client, url: &str) -> Option<T> {
    let response = http.get(url).timeout(PATIENCE).send().await.ok()?;
    response.error_for_status().ok()?.json().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Owner, WorkloadId};

    fn node(ordinal: u16, ready: bool, current: bool) -> InstanceState {
        InstanceState {
            name: format!("s-{ordinal}"),
            ordinal,
            host: "h".into(),
            phase: Phase::Running,
            ready,
            current,
            restarts: 0,
            stuck: false,
            process: None,
            message: None,
        }
    }

    fn state(instances: Vec<InstanceState>) -> WorkloadState {
        WorkloadState {
            id: WorkloadId::new("n", "s"),
            owner: Owner {
                kind: "NatsShard".into(),
                name: "s".into(),
                uid: "u".into(),
            },
            wanted: 3,
            instances,
        }
    }

    fn views(count: u16) -> Vec<NodeView> {
        let all: BTreeSet<String> = (0..count).map(|n| format!("s-{n}")).collect();
        (0..count)
            .map(|ordinal| NodeView {
                ordinal,
                version: "2.15.2".into(),
                routes: all.clone(),
            })
            .collect()
    }

    #[test]
    fn the_last_outdated_node_goes_first_and_only_when_the_shard_is_whole() {
        let outdated = state(vec![
            node(0, true, false),
            node(1, true, false),
            node(2, true, true),
        ]);
        assert_eq!(gate(&outdated, &views(3)), Gate::Restart(1));
        assert_eq!(
            gate(&outdated, &views(2)),
            Gate::Wait("s-0 has no route to s-2".into())
        );
        let starting = state(vec![
            node(0, true, false),
            node(1, true, false),
            node(2, false, true),
        ]);
        assert_eq!(
            gate(&starting, &views(3)),
            Gate::Wait("s-2 is not ready".into())
        );
        let done = state(vec![
            node(0, true, true),
            node(1, true, true),
            node(2, true, true),
        ]);
        assert_eq!(gate(&done, &views(3)), Gate::Whole);
    }

    #[test]
    fn a_broken_outdated_node_is_replaced_at_once_but_not_beside_a_moving_one() {
        let broken = state(vec![
            node(0, false, false),
            node(1, true, true),
            node(2, true, true),
        ]);
        assert_eq!(gate(&broken, &views(3)), Gate::Restart(0));
        let mut moving = broken;
        moving.instances[2].phase = Phase::Stopping;
        moving.instances[2].ready = false;
        assert!(matches!(gate(&moving, &views(3)), Gate::Wait(_)));
    }

    #[test]
    fn an_old_server_is_refused() {
        let whole = state(vec![
            node(0, true, true),
            node(1, true, true),
            node(2, true, true),
        ]);
        let mut nodes = views(3);
        nodes[1].version = "2.10.0".into();
        assert!(
            matches!(gate(&whole, &nodes), Gate::Refuse(message) if message.contains("2.12.7"))
        );
    }
}
