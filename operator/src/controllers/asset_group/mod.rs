//! `AssetGroup`: the derived streams of a level.

pub mod build;
mod status;
pub mod validate;

use ofa_crds::api::{AssetGroup, AssetGroupStatus};

use self::status::{serves, status};
use self::validate::{ValidGroup, validate};
use super::conditions::{Outcome, of_instances};
use super::{Context, Identity, Removal, kafka_connection};
use crate::platform::{Owner, PlatformError, WorkloadId};

/// Brings a group about: validate, see that nobody else writes its topics, run what derives, say how far it is.
pub async fn reconcile(group: &AssetGroup, context: &Context<'_>) -> AssetGroupStatus {
    let valid = match validate(group, context.settings) {
        Ok(valid) => valid,
        Err(invalid) => {
            return status(
                group,
                &Outcome::stalled(invalid.reason, invalid.to_string()),
            );
        }
    };
    let outcome = steps(group, &valid, context)
        .await
        .unwrap_or_else(|error| Outcome::from(error).serving(serves(group)));
    status(group, &outcome)
}

/// Stops what derives for a deleted group. Its topics stay.
///
/// # Errors
/// When the platform refuses.
pub async fn finalize(group: &AssetGroup, context: &Context<'_>) -> Result<Removal, PlatformError> {
    let identity = Identity::of(&group.metadata);
    let mut gone = true;
    for id in own(&identity, context).await? {
        gone &= context.platform.remove(&id).await?;
    }
    Ok(if gone {
        Removal::Done
    } else {
        Removal::UnderWay
    })
}

async fn steps(
    group: &AssetGroup,
    valid: &ValidGroup,
    context: &Context<'_>,
) -> Result<Outcome, PlatformError> {
    if group.spec.paused || valid.identity.paused {
        return Ok(Outcome::under_way(
            "Paused",
            "changes are paused (spec.paused or the pause annotation); what runs goes on",
        )
        .serving(serves(group)));
    }
    if let Some(other) = who_overlaps(valid, context).await? {
        return Ok(Outcome::stalled(
            "LevelTaken",
            format!(
                "{} {} derives groups of level {} from {} already, and every event would stand in their topics twice; keep one of \
                 the two (one AssetGroup without spec.grouping.value serves every value of a level)",
                other.kind, other.name, valid.level, valid.source_topic
            ),
        ));
    }
    let id = valid.workload_id();
    // What was asked for before under another level or value goes first, or both would write.
    let mut gone = true;
    for old in own(&valid.identity, context)
        .await?
        .into_iter()
        .filter(|old| *old != id)
    {
        gone &= context.platform.remove(&old).await?;
    }
    if !gone {
        return Ok(Outcome::under_way(
            "Replacing",
            "what derived by the spec before is stopping",
        ));
    }
    let namespace = &valid.identity.namespace;
    let certificate =
        kafka_connection::has_client_certificate(&valid.kafka, namespace, context.platform).await?;
    let workload = build::build(valid, context.settings, certificate);
    context.platform.ensure(&workload).await?;
    let Some(state) = context.platform.observe(&id).await? else {
        return Ok(Outcome::under_way(
            "Creating",
            "what derives is about to be created",
        ));
    };
    let outcome = of_instances(&state).unwrap_or_else(|| {
        Outcome::ready("all instances are ready; every event is written to its group's topic")
    });
    Ok(outcome
        .serving(serves(group) && state.ready() > 0)
        .held_back(&state))
}

/// The resource that derives the same already.
async fn who_overlaps(
    valid: &ValidGroup,
    context: &Context<'_>,
) -> Result<Option<Owner>, PlatformError> {
    let mine = valid.identity.owner("AssetGroup");
    let all = context.platform.list().await?;
    let mut others = all.into_iter().filter(|state| state.owner != mine);
    Ok(others
        .find(|state| valid.overlaps(&state.id))
        .map(|state| state.owner))
}

/// Workloads that run for a group.
async fn own(identity: &Identity, context: &Context<'_>) -> Result<Vec<WorkloadId>, PlatformError> {
    let owner = identity.owner("AssetGroup");
    let all = context.platform.list().await?;
    let own = all
        .into_iter()
        .filter(|state| state.owner == owner && state.id.namespace == identity.namespace);
    Ok(own.map(|state| state.id).collect())
}
