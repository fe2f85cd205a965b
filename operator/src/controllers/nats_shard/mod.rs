//! `NatsShard`: one NATS cluster.

pub mod build;
pub mod conf;
mod config;
pub mod credentials;
pub mod gate;
pub mod node;
mod reload;
mod roll;
mod status;
pub mod validate;

use ofa_crds::api::{NatsShard, NatsShardStatus};

use self::config::InForce;
use self::roll::{Roll, Step};
use self::validate::{ValidShard, validate};
use super::conditions::{Outcome, of_instances};
use super::{Context, Identity, Removal};
use crate::platform::{PlatformError, SecretId, Workload, WorkloadId, WorkloadState};

/// Brings a shard about: validate, dereference, build, apply, pass the gate, say how far it is.
pub async fn reconcile(shard: &NatsShard, context: &Context<'_>) -> NatsShardStatus {
    let valid = match validate(shard) {
        Ok(valid) => valid,
        Err(invalid) => return status::invalid(shard, &invalid),
    };
    let hosts = match dereference_hosts(&valid, context).await {
        Ok(hosts) => hosts,
        Err(error) => return status::failed(shard, &valid, error),
    };
    let paused = shard.spec.paused || valid.identity.paused;
    let progress = if paused {
        observe(&valid.workload_id(), context).await
    } else {
        apply(shard, &valid, &hosts, context).await
    };
    match progress {
        Ok((state, mut step)) => {
            let urls = build::urls(&valid, &hosts);
            if paused {
                step.outcome = paused_outcome(&state);
            }
            if let Some(state) = &state {
                step.outcome = step.outcome.held_back(state);
            }
            status::observed(shard, &valid, urls, state.as_ref(), step)
        }
        Err(error) => status::failed(shard, &valid, error),
    }
}

/// Removes a deleted shard, unless a shard map still gives it assets.
///
/// # Errors
/// When the platform refuses.
pub async fn finalize(shard: &NatsShard, context: &Context<'_>) -> Result<Removal, PlatformError> {
    let identity = Identity::of(&shard.metadata);
    let mut pools = context
        .pools
        .iter()
        .filter(|pool| pool.namespace == identity.namespace);
    if pools.any(|pool| pool.deleted) {
        return Ok(Removal::UnderWay);
    }
    if let Some(refusal) = still_owns_assets(shard, &identity, context).await {
        return Ok(Removal::Refused(refusal));
    }
    let id = WorkloadId::new(identity.namespace.as_str(), identity.name.as_str());
    if !context.platform.remove(&id).await? {
        return Ok(Removal::UnderWay);
    }
    let secret = SecretId::new(
        identity.namespace.as_str(),
        credentials::secret_name(&identity.name),
    );
    context.platform.remove_secret(&secret).await?;
    Ok(Removal::Done)
}

type Progress = Result<(Option<WorkloadState>, Step), PlatformError>;

async fn dereference_hosts(
    shard: &ValidShard,
    context: &Context<'_>,
) -> Result<Vec<String>, PlatformError> {
    let id = shard.workload_id();
    let mut hosts = Vec::with_capacity(usize::from(shard.nodes));
    for ordinal in 0..shard.nodes {
        hosts.push(context.platform.instance_host(&id, ordinal).await?);
    }
    Ok(hosts)
}

async fn apply(
    shard: &NatsShard,
    valid: &ValidShard,
    hosts: &[String],
    context: &Context<'_>,
) -> Progress {
    let credentials = credentials::ensure(valid, context.platform).await?;
    let status = shard.status.as_ref();
    let in_force = InForce::of(valid, hosts, &credentials, status);
    let workload: Workload = build::build(&in_force.shard, &in_force.conf);
    context.platform.ensure(&workload).await?;
    let (state, step) = observe(&workload.id, context).await?;
    let Some(state) = state else {
        return Ok((None, step));
    };
    let roll = Roll {
        in_force: &in_force,
        hosts,
        credentials: &credentials,
        status,
        context,
    };
    let step = roll.step(&state, step.outcome).await?;
    Ok((Some(state), step))
}

async fn observe(id: &WorkloadId, context: &Context<'_>) -> Progress {
    let state = context.platform.observe(id).await?;
    let found = state.as_ref().map(of_instances);
    let outcome = match found {
        None => Outcome::under_way("Creating", "the nodes are about to be created"),
        Some(None) => Outcome::ready("all nodes are ready and connected"),
        Some(Some(outcome)) => outcome,
    };
    Ok((state, outcome.into()))
}

fn paused_outcome(state: &Option<WorkloadState>) -> Outcome {
    let serves = state.as_ref().is_some_and(|state| state.ready() > 0);
    Outcome::under_way(
        "Paused",
        "changes are paused (spec.paused or the pause annotation); what runs goes on",
    )
    .serving(serves)
}

/// What must be done before the shard can go; `None` when it may.
async fn still_owns_assets(
    shard: &NatsShard,
    identity: &Identity,
    context: &Context<'_>,
) -> Option<String> {
    let ring_name = shard.spec.ring_name(&identity.name);
    for pool in context
        .pools
        .iter()
        .filter(|pool| pool.namespace == identity.namespace)
    {
        match context.control.published(pool).await {
            Ok(published) => {
                let Some(map) = &published.map else { continue };
                if map
                    .shards()
                    .iter()
                    .any(|owner| owner.name.as_str() == ring_name)
                {
                    return Some(format!(
                        "the shard still has assets in the shard map of pool {} (epoch {}); it goes when the pool has \
                         moved them to its other shards, which its conditions tell about",
                        pool.name,
                        map.epoch()
                    ));
                }
                let behind = published.acknowledged.iter();
                if let Some((member, _)) =
                    behind.into_iter().find(|(_, epoch)| **epoch < map.epoch())
                {
                    return Some(format!(
                        "forwarder {member} of pool {} may still publish to it: it has not acknowledged epoch {} yet",
                        pool.name,
                        map.epoch()
                    ));
                }
            }
            Err(error) => {
                return Some(format!(
                    "whether the shard still has assets of pool {} cannot be known: {error}",
                    pool.name
                ));
            }
        }
    }
    None
}
