//! `ForwarderPool`: forwarders and the shard map they act by.

pub mod build;
pub mod map;
mod status;
pub mod validate;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use ofa_crds::ShardMap;
use ofa_crds::api::{ForwarderPool, ForwarderPoolStatus};

use self::map::{Candidate, Decision, decide, select};
use self::status::{Observed, status, unacknowledged};
use self::validate::{ValidPool, control_name, validate};
use super::conditions::{Outcome, of_instances};
use super::control_plane::{ControlPlaneError, PoolRef, Published};
use super::{Context, Identity, Removal, kafka_connection};
use crate::platform::{Phase, PlatformError, WorkloadId, WorkloadState};

/// Brings a pool about: validate, select shards, run forwarders, publish the map, say how far it is.
pub async fn reconcile(pool: &ForwarderPool, context: &Context<'_>) -> ForwarderPoolStatus {
    let mut observed = Observed::default();
    let outcome = match validate(pool, context.settings) {
        Ok(valid) => steps(pool, &valid, context, &mut observed).await,
        Err(invalid) => Ok(Outcome::stalled(invalid.reason, invalid.to_string())),
    };
    let outcome = outcome.unwrap_or_else(Outcome::from);
    status(pool, &observed, outcome)
}

/// Removes a deleted pool: forwarders first, then its map, which nobody acts by any more.
///
/// # Errors
/// When the platform refuses.
pub async fn finalize(
    pool: &ForwarderPool,
    context: &Context<'_>,
) -> Result<Removal, PlatformError> {
    let identity = Identity::of(&pool.metadata);
    let id = WorkloadId::new(identity.namespace.as_str(), identity.name.as_str());
    if !context.platform.remove(&id).await? {
        return Ok(Removal::UnderWay);
    }
    let published_before = pool
        .status
        .as_ref()
        .is_some_and(|status| status.shard_map_epoch > 0);
    let Some(pool_ref) = pool_ref(&identity, context).filter(|_| published_before) else {
        return Ok(Removal::Done);
    };
    match context.control.withdraw(pool_ref).await {
        Ok(()) => Ok(Removal::Done),
        Err(error) if waited_long_enough(pool) => {
            tracing::warn!(pool = pool_ref.name, %error, "its shard map stays on the control topic");
            Ok(Removal::Done)
        }
        Err(error) => Ok(Removal::Refused(format!(
            "its shard map cannot be withdrawn yet: {error}"
        ))),
    }
}

/// A Kafka that is gone for good must not keep the pool for ever; a map that nobody acts by does no harm.
fn waited_long_enough(pool: &ForwarderPool) -> bool {
    /// Longer than a broker takes to restart.
    const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
    let deleted = pool.metadata.deletion_timestamp.as_ref();
    deleted.is_some_and(|at| Timestamp::now().duration_since(at.0) >= PATIENCE)
}

fn pool_ref<'a>(identity: &Identity, context: &'a Context<'_>) -> Option<&'a PoolRef> {
    let name = control_name(identity);
    context.pools.iter().find(|pool| pool.name == name)
}

async fn steps(
    pool: &ForwarderPool,
    valid: &ValidPool,
    context: &Context<'_>,
    observed: &mut Observed,
) -> Result<Outcome, PlatformError> {
    let shards = select(
        context.shards,
        &valid.identity.namespace,
        &valid.shard_labels,
    );
    let paused = pool.spec.paused || valid.identity.paused;
    if !paused {
        let namespace = &valid.identity.namespace;
        let certificate =
            kafka_connection::has_client_certificate(&valid.kafka, namespace, context.platform)
                .await?;
        let workload = build::build(valid, &shards, context.settings, certificate);
        context.platform.ensure(&workload).await?;
    }
    observed.forwarders = context.platform.observe(&valid.workload_id()).await?;
    let Some(pool_ref) = pool_ref(&valid.identity, context) else {
        return Ok(Outcome::under_way(
            "KafkaUnknown",
            "how to reach Kafka is not known yet",
        ));
    };
    observed.progress =
        context
            .control
            .progress(&pool_ref.kafka, &valid.source.topic, &valid.consumer_group);
    let published = match context.control.published(pool_ref).await {
        Ok(published) => published,
        Err(error) => return Ok(kafka_outcome(&error)),
    };
    observed.published = Some(published.clone());
    if paused {
        return Ok(Outcome::under_way(
            "Paused",
            "changes are paused (spec.paused or the pause annotation)",
        ));
    }
    Ok(follow_map(valid, &shards, published, pool_ref, context, observed).await)
}

/// Decides about the map, publishes it if need be, and says what is waited for.
async fn follow_map(
    valid: &ValidPool,
    shards: &[Candidate],
    published: Published,
    pool_ref: &PoolRef,
    context: &Context<'_>,
    observed: &mut Observed,
) -> Outcome {
    let waiting = match decide(shards, published.map.as_deref(), valid.ring_replicas) {
        Decision::Refuse(why) => return Outcome::stalled("NoShardMap", why),
        Decision::Wait(waiting) => {
            let waited = waiting.join(", ");
            return Outcome::under_way(
                "WaitingForShards",
                format!("waits until ready for the first time: {waited}"),
            );
        }
        Decision::Publish(map) => {
            if let Some(outcome) = hold_back(observed.forwarders.as_ref()) {
                return outcome;
            }
            if let Err(error) = publish(&map, pool_ref, context).await {
                return kafka_outcome(&error);
            }
            observed.published = Some(Published {
                map: Some(Arc::new(map)),
                ..published
            });
            Vec::new()
        }
        Decision::Keep { waiting } => waiting,
    };
    settle(observed, &waiting)
}

async fn publish(
    map: &ShardMap,
    pool: &PoolRef,
    context: &Context<'_>,
) -> Result<(), ControlPlaneError> {
    let shards: Vec<&str> = map
        .shards()
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    tracing::info!(
        pool = pool.name,
        epoch = map.epoch(),
        ?shards,
        "publishes the shard map"
    );
    context.control.publish(pool, map).await
}

/// A running forwarder must have the credentials of every shard before it is told to use it; one that
/// starts later starts with them.
fn hold_back(forwarders: Option<&WorkloadState>) -> Option<Outcome> {
    let mut instances = forwarders?.instances.iter();
    let outdated =
        instances.find(|instance| !instance.current && instance.phase == Phase::Running)?;
    let message = format!(
        "{} has no credentials of the new shard yet; the shard map follows",
        outdated.name
    );
    Some(Outcome::under_way("RollingUpdate", message))
}

fn settle(observed: &Observed, waiting: &[String]) -> Outcome {
    let (Some(forwarders), Some(published)) = (&observed.forwarders, &observed.published) else {
        return Outcome::under_way("Creating", "the forwarders are about to be created");
    };
    if let Some(outcome) = of_instances(forwarders) {
        return outcome;
    }
    let behind = unacknowledged(forwarders, published);
    if !behind.is_empty() {
        let message = format!(
            "have not acknowledged the shard map yet: {}",
            behind.join(", ")
        );
        return Outcome::under_way("Unacknowledged", message);
    }
    if !waiting.is_empty() {
        let message = format!(
            "waits until ready for the first time: {}",
            waiting.join(", ")
        );
        return Outcome::under_way("WaitingForShards", message);
    }
    Outcome::ready("all forwarders are ready and act by the published shard map")
}

fn kafka_outcome(error: &ControlPlaneError) -> Outcome {
    Outcome::under_way("KafkaUnreachable", format!("{error}; trying again"))
}
