//! What is said about a group.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ofa_crds::GroupName;
use ofa_crds::api::{
    AssetGroup, AssetGroupStatus, Condition, ConditionStatus, GroupState, GroupStatus,
    PlannedAction, READY, StreamAction, set_condition,
};

use super::groups::Groups;
use super::services::ServiceState;
use crate::controllers::conditions::{Outcome, merge};
use crate::controllers::partitioning::Partitioning;
use crate::engine::{Group, Planned, Streams};

/// The condition that tells of events that a join by ksqlDB misses.
const JOIN: &str = "PartitionerMismatch";

/// What one pass has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) groups: Groups,
    pub(super) services: BTreeMap<GroupName, ServiceState>,
    pub(super) streams: Option<Streams>,
    /// Whether the map was read, so that groups are known.
    pub(super) is_known: bool,
    pub(super) partitioning: Option<Partitioning>,
}

/// The status after `outcome`, nothing else being known.
pub(super) fn status(group: &AssetGroup, outcome: &Outcome) -> AssetGroupStatus {
    let old = group.status.clone().unwrap_or_default();
    let generation = group.metadata.generation;
    AssetGroupStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, outcome, generation, Timestamp::now()),
        ..old
    }
}

/// The status after a whole pass.
pub(super) fn full_status(
    resource: &AssetGroup,
    outcome: &Outcome,
    found: &Found,
) -> AssetGroupStatus {
    let mut status = status(resource, outcome);
    if let Some(condition) = mismatch(resource, found.partitioning) {
        set_condition(&mut status.conditions, condition);
    }
    if let Some(streams) = &found.streams {
        status.lag = streams.lag;
        status.planned_actions =
            planned_actions(&status.planned_actions, &streams.planned, Timestamp::now());
    }
    if found.is_known {
        status.group_count = Some(found.groups.present.len() as u64);
        status.groups = group_statuses(found);
    }
    status
}

/// What is planned, each with the time since when it stands there.
fn planned_actions(
    old: &[PlannedAction],
    planned: &[Planned],
    now: Timestamp,
) -> Vec<PlannedAction> {
    let since = |planned: &Planned| {
        let mut same = old.iter().filter(|old| {
            (&old.stream, old.action, &old.message)
                == (&planned.stream, planned.action, &planned.message)
        });
        same.next().map_or_else(
            || now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            |old| old.since.clone(),
        )
    };
    let actions = planned.iter().map(|planned| PlannedAction {
        stream: planned.stream.clone(),
        action: planned.action,
        message: planned.message.clone(),
        since: since(planned),
    });
    actions.collect()
}

/// What has stood in the status for `grace_seconds`, and may be done now.
pub(super) fn shown(
    resource: &AssetGroup,
    grace_seconds: u32,
    now: Timestamp,
) -> Vec<&PlannedAction> {
    let status = resource.status.iter();
    let actions = status.flat_map(|status| &status.planned_actions);
    let long_enough = |action: &&PlannedAction| {
        action
            .since
            .parse::<Timestamp>()
            .is_ok_and(|since| now.duration_since(since).as_secs() >= i64::from(grace_seconds))
    };
    actions
        .filter(|action| action.action == StreamAction::Recreate)
        .filter(long_enough)
        .collect()
}

fn group_statuses(found: &Found) -> Vec<GroupStatus> {
    let problem = |group: &Group| {
        let stream = found.streams.iter();
        let stream = stream.filter_map(|streams| streams.problems.get(&group.name).cloned());
        let service = found.services.get(&group.name);
        let service = service.and_then(|service| service.problem.clone());
        let all: Vec<String> = stream.chain(service).collect();
        (!all.is_empty()).then(|| all.join("; "))
    };
    let present = found.groups.present.iter().map(|group| {
        let service = found.services.get(&group.name);
        let state = service.map_or(GroupState::None, |service| service.state);
        (group, state)
    });
    let leaving = found.groups.leaving.iter();
    present
        .chain(leaving.map(|group| (group, GroupState::Leaving)))
        .map(|(group, state)| GroupStatus {
            name: group.name.to_string(),
            topic: group.topic.clone(),
            assets: group.assets,
            service: (state != GroupState::None).then(|| group.name.service()),
            state,
            message: problem(group),
        })
        .collect()
}

fn mismatch(resource: &AssetGroup, seen: Option<Partitioning>) -> Option<Condition> {
    let seen = seen.filter(|seen| seen.misplaced > 0)?;
    let old = resource.status.iter().flat_map(|status| &status.conditions);
    let since = old
        .into_iter()
        .find(|condition| condition.kind == JOIN)
        .map(|condition| condition.last_transition_time.clone());
    let now = || Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some(Condition {
        kind: JOIN.to_owned(),
        status: ConditionStatus::True,
        observed_generation: resource.metadata.generation,
        last_transition_time: since.unwrap_or_else(now),
        reason: "ProducersDiffer".to_owned(),
        message: format!(
            "{} of the {} newest events lie on partitions where ksqlDB's join does not find their assets; set \
             partitioner=murmur2_random in the programs that produce, or spec.stream.engine: Native, which finds them anywhere",
            seen.misplaced, seen.seen
        ),
    })
}

/// Ready once, a group counts as serving for as long as nothing says otherwise.
pub(super) fn serves(group: &AssetGroup) -> bool {
    let conditions = group.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|c| c.kind == READY && c.status == ConditionStatus::True)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stood_there_long_enough_is_done() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let planned = |message: &str| Planned {
            stream: "S".to_owned(),
            action: StreamAction::Recreate,
            message: message.to_owned(),
        };
        let spec = serde_json::from_str(r#"{"grouping": {"level": "l"}}"#).unwrap();
        let mut resource = AssetGroup::new("g", spec);
        let first = planned_actions(&[], &[planned("a")], at(0));
        let later = planned_actions(&first, &[planned("a")], at(50));
        resource.status = Some(AssetGroupStatus {
            planned_actions: later.clone(),
            ..AssetGroupStatus::default()
        });
        assert!(shown(&resource, 60, at(59)).is_empty());
        assert_eq!(shown(&resource, 60, at(60)).len(), 1);
        let other = planned_actions(&later, &[planned("b")], at(59));
        resource.status = Some(AssetGroupStatus {
            planned_actions: other,
            ..AssetGroupStatus::default()
        });
        assert!(
            shown(&resource, 60, at(60)).is_empty(),
            "another reason is another plan"
        );
    }
}
