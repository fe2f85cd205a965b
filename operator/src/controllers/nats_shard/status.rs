//! What is said about a shard.

use jiff::Timestamp;
use ofa_crds::api::{NatsShard, NatsShardStatus};

use super::roll::{News, Step};
use super::validate::{Invalid, ValidShard};
use crate::controllers::conditions::{Outcome, merge};
use crate::platform::{PlatformError, WorkloadState};

/// A spec that cannot be built; what runs goes on.
pub(super) fn invalid(shard: &NatsShard, invalid: &Invalid) -> NatsShardStatus {
    let old = shard.status.clone().unwrap_or_default();
    let serves = old.ready_nodes > 0;
    with(
        shard,
        old,
        &Outcome::stalled("Invalid", invalid.to_string()).serving(serves),
    )
}

/// The platform refused; what runs goes on.
pub(super) fn failed(
    shard: &NatsShard,
    valid: &ValidShard,
    error: PlatformError,
) -> NatsShardStatus {
    let mut old = shard.status.clone().unwrap_or_default();
    old.cluster_name = Some(valid.ring_name.to_string());
    let serves = old.ready_nodes > 0;
    with(shard, old, &Outcome::from(error).serving(serves))
}

/// What was observed.
pub(super) fn observed(
    shard: &NatsShard,
    valid: &ValidShard,
    urls: Vec<String>,
    state: Option<&WorkloadState>,
    step: Step,
) -> NatsShardStatus {
    let ready_nodes = state.map_or(0, WorkloadState::ready);
    let old = shard.status.clone().unwrap_or_default();
    // Ready once, a shard counts as serving for as long as one node does.
    let serves = ready_nodes > 0 && is_ready(&old);
    let status = NatsShardStatus {
        cluster_name: Some(valid.ring_name.to_string()),
        ready_nodes,
        urls,
        ..old
    };
    let status = note(status, step.news);
    with(shard, status, &step.outcome.serving(serves))
}

fn note(status: NatsShardStatus, news: News) -> NatsShardStatus {
    let moving = status.clients_moving_since.clone();
    let status = NatsShardStatus {
        clients_moving_since: None,
        ..status
    };
    match news {
        News::None => status,
        News::Accepted(config) => NatsShardStatus {
            accepted_config: Some(config),
            ..status
        },
        News::Refused(config) => NatsShardStatus {
            refused_config: Some(config),
            ..status
        },
        News::ClientsMove => NatsShardStatus {
            clients_moving_since: moving.or_else(|| Some(Timestamp::now().to_string())),
            ..status
        },
    }
}

fn is_ready(status: &NatsShardStatus) -> bool {
    use ofa_crds::api::{ConditionStatus, READY};
    status
        .conditions
        .iter()
        .any(|c| c.kind == READY && c.status == ConditionStatus::True)
}

fn with(shard: &NatsShard, status: NatsShardStatus, outcome: &Outcome) -> NatsShardStatus {
    let generation = shard.metadata.generation;
    NatsShardStatus {
        observed_generation: generation,
        conditions: merge(&status.conditions, outcome, generation, Timestamp::now()),
        ..status
    }
}
