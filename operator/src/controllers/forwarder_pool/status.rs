//! What is said about a pool.

use jiff::Timestamp;
use ofa_crds::api::{ConditionStatus, ForwarderPool, ForwarderPoolStatus, READY};

use crate::controllers::conditions::{Outcome, merge};
use crate::controllers::control_plane::{Progress, Published};
use crate::platform::WorkloadState;

/// What was observed; what could not be keeps what was known.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) forwarders: Option<WorkloadState>,
    pub(super) published: Option<Published>,
    pub(super) progress: Option<Progress>,
}

/// Forwarders that have not acknowledged the published map.
pub(super) fn unacknowledged(forwarders: &WorkloadState, published: &Published) -> Vec<String> {
    let Some(map) = &published.map else {
        return Vec::new();
    };
    let behind = |name: &String| {
        published
            .acknowledged
            .get(name)
            .is_none_or(|&epoch| epoch < map.epoch())
    };
    forwarders
        .instances
        .iter()
        .map(|instance| instance.name.clone())
        .filter(behind)
        .collect()
}

/// The status after `outcome`.
pub(super) fn status(
    pool: &ForwarderPool,
    observed: &Observed,
    outcome: Outcome,
) -> ForwarderPoolStatus {
    let mut status = pool.status.clone().unwrap_or_default();
    if let Some(forwarders) = &observed.forwarders {
        status.replicas = u16::try_from(forwarders.instances.len()).unwrap_or(u16::MAX);
        status.ready_replicas = forwarders.ready();
    }
    if let Some(published) = &observed.published {
        status.shards = published.map.as_ref().map_or(0, |map| {
            u16::try_from(map.shards().len()).unwrap_or(u16::MAX)
        });
        status.shard_map_epoch = published.map.as_ref().map_or(0, |map| map.epoch());
    }
    if let (Some(forwarders), Some(published)) = (&observed.forwarders, &observed.published) {
        status.unacknowledged = unacknowledged(forwarders, published);
    }
    status.partitions = observed
        .progress
        .map(|progress| progress.partitions)
        .or(status.partitions);
    status.lag = observed.progress.map(|progress| progress.lag);
    let meta = &pool.metadata;
    status.selector = meta
        .name
        .as_ref()
        .map(|name| format!("fanout.openfactory.io/pool={name}"));
    let was_ready = status
        .conditions
        .iter()
        .any(|c| c.kind == READY && c.status == ConditionStatus::True);
    // Ready once, a pool counts as serving for as long as one forwarder does.
    let serves = was_ready && status.ready_replicas > 0;
    status.observed_generation = meta.generation;
    status.conditions = merge(
        &status.conditions,
        &outcome.serving(serves),
        meta.generation,
        Timestamp::now(),
    );
    status
}
