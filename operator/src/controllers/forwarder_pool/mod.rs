//! `ForwarderPool`: forwarders and the shard map they act by.

pub mod autoscale;
pub mod build;
mod credentials;
pub mod map;
mod reshard;
mod status;
pub mod validate;

use jiff::{SignedDuration, Timestamp};
use ofa_crds::api::{AutoscalingStatus, ForwarderPool, ForwarderPoolStatus, GroupProtocol};

use self::map::{leaving, select};
use self::reshard::{follow_map, kafka_outcome};
use self::status::{Observed, status, unacknowledged};
use self::validate::{ValidPool, control_name, validate};
use super::conditions::{Outcome, Progress as State};
use super::control_plane::{PoolRef, Progress, Published};
use super::news::{Reader, Subject};
use super::{Context, Identity, Removal, kafka_connection};
use crate::platform::{PlatformError, WorkloadId};

/// Brings a pool about: validate, select shards, run forwarders, publish the map, say how far it is.
pub async fn reconcile(pool: &ForwarderPool, context: &Context<'_>) -> ForwarderPoolStatus {
    let mut observed = Observed::default();
    let outcome = match validate(pool, context.settings) {
        Ok(_) if pool.spec.autoscaling.is_some() && !context.scales => Ok(Outcome::stalled(
            "Unsupported",
            "spec.autoscaling needs the scale subresource of Kubernetes; set spec.replicas instead",
        )),
        Ok(valid) => steps(pool, &valid, context, &mut observed).await,
        Err(invalid) => Ok(Outcome::stalled(invalid.reason, invalid.to_string())),
    };
    let mut outcome = outcome.unwrap_or_else(Outcome::from);
    if let Some(forwarders) = &observed.forwarders {
        outcome = outcome.held_back(forwarders);
    }
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
    let paused = pool.spec.paused || valid.identity.paused;
    observed.forwarders = context.platform.observe(&valid.workload_id()).await?;
    hear_of_changes(valid, context);
    let pool_ref = pool_ref(&valid.identity, context);
    let published = match pool_ref {
        Some(pool_ref) => Some(context.control.published(pool_ref).await),
        None => None,
    };
    let known = published.as_ref().and_then(|it| it.as_ref().ok());
    // Without the map it is not known which credentials forwarders that run still need.
    if !paused && (known.is_some() || observed.forwarders.is_none()) {
        run_forwarders(valid, known, context).await?;
        observed.forwarders = context.platform.observe(&valid.workload_id()).await?;
    }
    let (Some(pool_ref), Some(published)) = (pool_ref, published) else {
        return Ok(Outcome::under_way(
            "KafkaUnknown",
            "how to reach Kafka is not known yet",
        ));
    };
    observed.progress =
        context
            .control
            .progress(&pool_ref.kafka, &valid.source.topic, &valid.consumer_group);
    let published = match published {
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
    let shards = selected(valid, context);
    let outcome = follow_map(valid, &shards, published, pool_ref, context, observed).await?;
    observed.autoscaling = autoscaling(pool, valid, observed);
    let refused = refused_by_group(valid.group_protocol, observed.progress);
    let hides_nothing = valid.replicas > 0 && outcome.state != State::Stalled;
    Ok(refused.filter(|_| hides_nothing).unwrap_or(outcome))
}

fn hear_of_changes(valid: &ValidPool, context: &Context<'_>) {
    let reader = Reader::of("ForwarderPool", &valid.identity);
    let pool = Subject::Pool(control_name(&valid.identity));
    let progress = Subject::Progress(valid.consumer_group.clone());
    context.readers.add(&reader, [pool, progress]);
}

/// Why new forwarders are not taken into their group, where Kafka does not take them.
fn refused_by_group(protocol: GroupProtocol, progress: Option<Progress>) -> Option<Outcome> {
    let members = progress?.classic_members;
    (protocol == GroupProtocol::Consumer && members > 0).then(|| {
        Outcome::stalled(
            "ClassicMembers",
            format!(
                "Kafka takes no forwarder of groupProtocol Consumer into a group with classic members ({members} now, which go on); set spec.replicas to 0 (and leave spec.autoscaling out) until status.members is 0, then back"
            ),
        )
    })
}

fn autoscaling(
    pool: &ForwarderPool,
    valid: &ValidPool,
    observed: &Observed,
) -> Option<AutoscalingStatus> {
    let forwarders = observed.forwarders.as_ref();
    let acknowledged = match (forwarders, &observed.published) {
        (Some(forwarders), Some(published)) => unacknowledged(forwarders, published).is_empty(),
        _ => false,
    };
    let before = pool.status.as_ref();
    Some(autoscale::decide(&autoscale::Seen {
        limits: pool.spec.autoscaling.as_ref()?,
        replicas: valid.replicas,
        forwarders,
        progress: observed.progress,
        acknowledged,
        before: before.and_then(|status| status.autoscaling.as_ref()),
        now: Timestamp::now(),
    }))
}

fn selected(valid: &ValidPool, context: &Context<'_>) -> Vec<map::Candidate> {
    let namespace = &valid.identity.namespace;
    select(context.shards, namespace, &valid.shard_labels)
}

async fn run_forwarders(
    valid: &ValidPool,
    published: Option<&Published>,
    context: &Context<'_>,
) -> Result<(), PlatformError> {
    let namespace = &valid.identity.namespace;
    let certificate =
        kafka_connection::has_client_certificate(&valid.kafka, namespace, context.platform).await?;
    let mut shards = selected(valid, context);
    let map = published.and_then(|published| published.map.as_deref());
    shards.extend(leaving(context.shards, namespace, &shards, map));
    shards.sort_by(|a, b| a.resource.cmp(&b.resource));
    let access = credentials::dereference(namespace, &shards, context.platform).await?;
    let workload = build::build(valid, &shards, &access, context.settings, certificate);
    context.platform.ensure(&workload).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_says_who_keeps_its_new_forwarders_out() {
        let with = |classic_members| {
            Some(Progress {
                classic_members,
                ..Progress::default()
            })
        };
        let refused = refused_by_group(GroupProtocol::Consumer, with(2)).unwrap();
        assert_eq!(refused.reason, "ClassicMembers");
        assert!(refused.message.contains("2 now"), "{}", refused.message);
        assert_eq!(refused_by_group(GroupProtocol::Consumer, with(0)), None);
        assert_eq!(refused_by_group(GroupProtocol::Consumer, None), None);
        assert_eq!(refused_by_group(GroupProtocol::Classic, with(2)), None);
    }
}
