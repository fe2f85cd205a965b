//! The gate a rolling change passes: one node at a time, the next only when the shard is whole again.

use super::node::NodeView;
use super::validate::{OLDEST, Version};
use crate::platform::{Phase, WorkloadState};

/// What the gate lets happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Every node runs what it should and all are connected.
    Whole,
    /// Nothing may be changed yet.
    Wait(String),
    /// This node serves nobody and may be restarted at once.
    Replace(u16),
    /// This node may be restarted when clients have settled.
    Restart(u16),
    /// This node may take in its changed configuration when clients have settled.
    Reload(u16),
    /// Somebody must help.
    Refuse(String),
}

/// Decides by what the platform and the nodes say, who are to run the configuration with this digest.
#[must_use]
pub fn gate(state: &WorkloadState, nodes: &[NodeView], config: &str) -> Gate {
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
        return Gate::Replace(broken.ordinal);
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
    let mut from_last = state.instances.iter().rev();
    if let Some(outdated) = from_last.find(|instance| !instance.current) {
        return Gate::Restart(outdated.ordinal);
    }
    let mut from_last = nodes.iter().rev();
    match from_last.find(|node| node.config.as_deref() != Some(config)) {
        Some(outdated) => Gate::Reload(outdated.ordinal),
        None => Gate::Whole,
    }
}

/// Connections that come and go in any case, for each look: probes, people.
const USUAL: u64 = 2;

/// Whether clients are still on the move between two looks at the nodes, and where. Each look counts connections.
#[must_use]
pub fn unsettled(before: &[NodeView], after: &[NodeView]) -> Option<String> {
    for now in after {
        let Some(then) = before.iter().find(|node| node.ordinal == now.ordinal) else {
            continue;
        };
        let usual = USUAL.max(then.connections / 50);
        let new = now.total_connections.saturating_sub(then.total_connections);
        if new > usual {
            return Some(format!(
                "clients are still connecting to {} ({new} since the last look)",
                now.name
            ));
        }
        let slow = now.slow_consumers.saturating_sub(then.slow_consumers);
        if slow > usual {
            return Some(format!(
                "{} disconnects clients that are too slow ({slow} since the last look)",
                now.name
            ));
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Gate, unsettled};
    use crate::controllers::nats_shard::node::NodeView;
    use crate::platform::{InstanceState, Owner, Phase, WorkloadId, WorkloadState};

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
            held_back: false,
        }
    }

    fn views(count: u16) -> Vec<NodeView> {
        let all: BTreeSet<String> = (0..count).map(|n| format!("s-{n}")).collect();
        (0..count)
            .map(|ordinal| NodeView {
                ordinal,
                name: format!("s-{ordinal}"),
                id: String::new(),
                version: "2.15.2".into(),
                routes: all.clone(),
                config: Some("new".into()),
                connections: 10,
                total_connections: 100,
                slow_consumers: 0,
            })
            .collect()
    }

    fn gate(state: &WorkloadState, nodes: &[NodeView]) -> Gate {
        super::gate(state, nodes, "new")
    }

    #[test]
    fn a_changed_configuration_is_taken_in_from_the_last_node_on_after_all_restarts() {
        let mut nodes = views(3);
        nodes[0].config = Some("old".into());
        nodes[1].config = None;
        let whole = state((0..3).map(|n| node(n, true, true)).collect());
        assert_eq!(gate(&whole, &nodes), Gate::Reload(1));
        let mut outdated = whole;
        outdated.instances[0].current = false;
        assert_eq!(gate(&outdated, &nodes), Gate::Restart(0));
        outdated.instances[2].ready = false;
        assert!(matches!(gate(&outdated, &nodes), Gate::Wait(_)));
    }

    #[test]
    fn clients_on_the_move_are_noticed() {
        let before = views(3);
        let mut after = views(3);
        after[2].total_connections += 2;
        assert_eq!(unsettled(&before, &after), None, "a probe or two");
        after[2].total_connections += 1;
        let said = unsettled(&before, &after).unwrap();
        assert!(said.contains("connecting to s-2 (3 "), "{said}");
        let mut slow = views(3);
        slow[1].slow_consumers = 9;
        assert!(unsettled(&before, &slow).unwrap().contains("s-1"));
        let mut many = views(3);
        many[0].connections = 1000;
        let mut churn = many.clone();
        churn[0].total_connections += 20;
        assert_eq!(unsettled(&many, &churn), None, "one in fifty");
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
        assert_eq!(gate(&broken, &views(3)), Gate::Replace(0));
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
