//! What is said about a pool.

use jiff::Timestamp;
use ofa_crds::api::{
    AutoscalingStatus, ConditionStatus, ForwarderPool, ForwarderPoolStatus, MixedPartitionsStatus,
    READY,
};

use crate::controllers::conditions::{Outcome, merge};
use crate::controllers::control_plane::{Progress, Published, Settling};
use crate::platform::{InstanceState, Phase, WorkloadState};

/// What was observed; what could not be keeps what was known.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) forwarders: Option<WorkloadState>,
    pub(super) published: Option<Published>,
    pub(super) settling: Option<Settling>,
    pub(super) progress: Option<Progress>,
    pub(super) autoscaling: Option<AutoscalingStatus>,
}

/// Forwarders that have not acknowledged the published map.
pub(super) fn unacknowledged(forwarders: &WorkloadState, published: &Published) -> Vec<String> {
    behind(forwarders.instances.iter(), published)
}

/// Forwarders that publish now and have not acknowledged the published map. One that is about to start begins
/// with the newest map.
pub(super) fn running_behind(
    forwarders: Option<&WorkloadState>,
    published: &Published,
) -> Vec<String> {
    let instances = forwarders.into_iter().flat_map(|state| &state.instances);
    let runs =
        |instance: &&InstanceState| matches!(instance.phase, Phase::Running | Phase::Stopping);
    behind(instances.filter(runs), published)
}

fn behind<'a>(
    instances: impl Iterator<Item = &'a InstanceState>,
    published: &Published,
) -> Vec<String> {
    let Some(map) = &published.map else {
        return Vec::new();
    };
    let is_behind = |name: &String| {
        published
            .acknowledged
            .get(name)
            .is_none_or(|&epoch| epoch < map.epoch())
    };
    instances
        .map(|instance| instance.name.clone())
        .filter(is_behind)
        .collect()
}

/// Routers that have not acknowledged the published map.
pub(super) fn routers_behind(settling: &Settling, published: &Published) -> Vec<String> {
    let Some(map) = &published.map else {
        return Vec::new();
    };
    let late = settling
        .routers
        .iter()
        .filter(|(_, epoch)| **epoch < map.epoch());
    late.map(|(name, _)| name.clone()).collect()
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
        status.mixed_partitions = published.mixed.as_ref().map(|mixed| MixedPartitionsStatus {
            assets: mixed.assets,
            example: mixed.example.clone(),
            partitions: mixed.partitions.to_vec(),
        });
    }
    if let (Some(forwarders), Some(published)) = (&observed.forwarders, &observed.published) {
        status.unacknowledged = unacknowledged(forwarders, published);
        if let Some(settling) = &observed.settling {
            let routers = routers_behind(settling, published);
            status.unacknowledged.extend(routers);
        }
    }
    status.partitions = observed
        .progress
        .map(|progress| progress.partitions)
        .or(status.partitions);
    status.members = observed.progress.and_then(|progress| progress.members);
    status.assigned_partitions = observed.progress.and_then(|progress| progress.assigned);
    status.lag = observed.progress.map(|progress| progress.lag);
    status.messages_per_second = observed.progress.and_then(|progress| progress.rate);
    let limits = pool.spec.autoscaling.as_ref();
    status.autoscaling = limits.and(observed.autoscaling.clone().or(status.autoscaling));
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
