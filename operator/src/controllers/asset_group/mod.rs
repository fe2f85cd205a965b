//! `AssetGroup`: the derived streams of a level, and the services that stream them.

pub mod build;
pub mod build_service;
mod claim;
mod groups;
pub mod ksqldb;
mod native;
mod services;
mod status;
pub mod validate;

use std::collections::BTreeMap;

use jiff::Timestamp;
use ofa_crds::GroupName;
use ofa_crds::api::{AssetGroup, AssetGroupStatus, DeletionPolicy, GroupState};
use ofa_crds::kafka::{ControlState, KafkaSettings};

use self::ksqldb::KsqlEngine;
use self::native::NativeEngine;
use self::services::Services;
use self::status::{Found, full_status, serves, shown, status};
use self::validate::{Engine, ValidGroup, validate};
use super::conditions::{Outcome, Progress};
use super::group_plane::GroupSource;
use super::news::{Reader, Subject};
use super::{Context, Identity, Removal, kafka_connection};
use crate::engine::{Group, StreamEngine};
use crate::platform::PlatformError;

/// Brings a group about: validate, find the groups, have their streams derived, run their services, say how far it is.
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
    if group.spec.paused || valid.identity.paused {
        let outcome = Outcome::under_way(
            "Paused",
            "changes are paused (spec.paused or the pause annotation); what runs goes on",
        );
        return status(group, &outcome.serving(serves(group)));
    }
    match steps(group, &valid, context).await {
        Ok((outcome, found)) => full_status(group, &outcome, &found),
        Err(error) => status(group, &Outcome::from(error).serving(serves(group))),
    }
}

/// Removes what was made for a deleted group: its services always, its streams and topics where its deletion policy says so.
///
/// # Errors
/// When the platform or ksqlDB refuses.
pub async fn finalize(group: &AssetGroup, context: &Context<'_>) -> Result<Removal, PlatformError> {
    let Ok(valid) = validate(group, context.settings) else {
        // Such a one has never had anything but what a spec before it asked for.
        return remove_workloads(&Identity::of(&group.metadata), context).await;
    };
    let kafka = kafka_of(&valid, context).await?;
    let mut groups = groups::before(group, &valid);
    if let (Some(value), true) = (&valid.value, groups.is_empty()) {
        groups.push(valid.group(value, 0));
    }
    let table = table(&kafka, context).unwrap_or_default();
    // Nothing is told of them any more.
    let untold = BTreeMap::new();
    let services = services(&valid, &kafka, (&table, &untold), context);
    for group in &groups {
        services.remove_group(group).await.map_err(failed)?;
    }
    let deletes = valid.deletion == DeletionPolicy::Delete;
    let streams = if deletes { groups.as_slice() } else { &[] };
    let engine = engine(group, &valid, &kafka, context);
    let mut gone = engine.release(streams).await?;
    gone &= remove_workloads(&valid.identity, context).await? == Removal::Done;
    if gone {
        for group in streams {
            delete_topic(group, &kafka, context).await?;
        }
    }
    Ok(if gone {
        Removal::Done
    } else {
        Removal::UnderWay
    })
}

async fn steps(
    resource: &AssetGroup,
    valid: &ValidGroup,
    context: &Context<'_>,
) -> Result<(Outcome, Found), PlatformError> {
    if let Some(refused) = claim::taken(resource, valid, context) {
        return Ok((refused.serving(false), Found::default()));
    }
    let kafka = kafka_of(valid, context).await?;
    let mut found = Found::default();
    let source = GroupSource {
        kafka: kafka.clone(),
        map_topic: valid.map_topic.clone(),
        level: valid.level.clone(),
    };
    hear_of_changes(valid, &source, context);
    let read = context.groups.groups(&source).map_err(failed)?;
    if let Some(groups) = groups::groups(resource, valid, read.as_ref()) {
        found.groups = groups;
        found.is_known = true;
    }
    let deletes = valid.deletion == DeletionPolicy::Delete;
    let leaving = if deletes {
        found.groups.leaving.as_slice()
    } else {
        &[]
    };
    let engine = engine(resource, valid, &kafka, context);
    let is_native = matches!(valid.engine, Engine::Native);
    if !found.is_known && !is_native {
        let outcome = waiting_for_map(valid, &kafka).serving(serves(resource));
        return Ok((outcome, found));
    }
    let streams = engine.ensure(&found.groups.present, leaving).await?;
    if !is_native {
        let seen = context.groups.partitioning(&kafka, &valid.source_topic);
        found.partitioning = seen;
    }
    let mut outcome = streams.outcome.clone();
    let removed = streams.removed;
    found.streams = Some(streams);
    if found.is_known {
        let served = serve(valid, &kafka, removed && deletes, &mut found, context).await?;
        outcome = worse(outcome, served);
    } else if outcome.state == Progress::Reached {
        outcome = waiting_for_map(valid, &kafka).serving(outcome.serves);
    }
    Ok((outcome, found))
}

fn hear_of_changes(valid: &ValidGroup, source: &GroupSource, context: &Context<'_>) {
    let reader = Reader::of("AssetGroup", &valid.identity);
    let of_engine = match valid.engine {
        Engine::Native => Subject::Progress(build::consumer_group(valid)),
        Engine::KsqlDb(_) => Subject::Partitioning(valid.source_topic.clone()),
    };
    context.readers.add(&reader, [source.subject(), of_engine]);
}

/// The services of all groups, and the removal of those of groups that have left.
async fn serve(
    valid: &ValidGroup,
    kafka: &KafkaSettings,
    deletes_topics: bool,
    found: &mut Found,
    context: &Context<'_>,
) -> Result<Outcome, PlatformError> {
    let reader = Reader::of("AssetGroup", &valid.identity);
    let groups = found.groups.present.iter();
    let subjects = groups.map(|group| Subject::Service(group.topic.clone()));
    context.readers.add(&reader, subjects);
    let Some(table) = table(kafka, context) else {
        return Ok(Outcome::under_way(
            "ReadingControlTopic",
            format!("the control topic on {} is not read yet", kafka.brokers),
        )
        .serving(true));
    };
    let unknown = BTreeMap::new();
    let streams = found.streams.as_ref();
    let consumer_groups = streams.map_or(&unknown, |streams| &streams.consumer_groups);
    let services = services(valid, kafka, (&table, consumer_groups), context);
    found.services = services.ensure(&found.groups.present).await?;
    let mut left = Vec::new();
    for group in std::mem::take(&mut found.groups.leaving) {
        let gone = services.remove_group(&group).await.map_err(failed)?;
        let must_wait = valid.deletion == DeletionPolicy::Delete && !deletes_topics;
        if !gone || must_wait {
            left.push(group);
        } else if deletes_topics {
            delete_topic(&group, kafka, context).await?;
        }
    }
    found.groups.leaving = left;
    Ok(of_services(found))
}

fn of_services(found: &Found) -> Outcome {
    let outcome = how_services_are(found);
    let mut states = found.services.iter();
    match states.find(|(_, service)| service.held_back) {
        None => outcome,
        Some((name, _)) => outcome.rollout_pending(format!(
            "this operator would run the services of groups, {name} for one, in another way"
        )),
    }
}

fn how_services_are(found: &Found) -> Outcome {
    let states = found.services.iter();
    let problem = states
        .clone()
        .find_map(|(name, service)| Some((name, service.problem.as_ref()?)));
    if let Some((name, problem)) = problem {
        return Outcome::stalled("ServiceFails", format!("group {name}: {problem}")).serving(true);
    }
    let starting: Vec<&str> = states
        .filter(|(_, service)| service.state == GroupState::Starting)
        .map(|(name, _)| name.as_str())
        .collect();
    if let Some(first) = starting.first() {
        let message = format!(
            "{} of {} groups' services are starting, {first} for one",
            starting.len(),
            found.services.len()
        );
        return Outcome::under_way("ServicesStarting", message).serving(true);
    }
    Outcome::ready(format!(
        "every event is written to its group's topic; {} groups are served",
        found.services.len()
    ))
}

/// The one that needs more help; it serves as long as both do.
fn worse(streams: Outcome, services: Outcome) -> Outcome {
    let rank = |outcome: &Outcome| match outcome.state {
        Progress::Reached => 0,
        Progress::UnderWay => 1,
        Progress::Stalled => 2,
    };
    let serves = streams.serves && services.serves;
    let pending = streams.rollout_pending.clone();
    let rollout_pending = pending.or_else(|| services.rollout_pending.clone());
    let worse = if rank(&streams) > rank(&services) {
        streams
    } else {
        services
    };
    Outcome {
        serves,
        rollout_pending,
        ..worse
    }
}

fn waiting_for_map(valid: &ValidGroup, kafka: &KafkaSettings) -> Outcome {
    Outcome::under_way(
        "ReadingMap",
        format!(
            "the map of assets {} on {} is not read yet, so the groups are not known; it appears when the first asset is registered",
            valid.map_topic, kafka.brokers
        ),
    )
}

fn engine<'a>(
    resource: &'a AssetGroup,
    valid: &'a ValidGroup,
    kafka: &'a KafkaSettings,
    context: &'a Context<'a>,
) -> Box<dyn StreamEngine + 'a> {
    match &valid.engine {
        Engine::Native => Box::new(NativeEngine {
            valid,
            context,
            kafka,
        }),
        Engine::KsqlDb(server) => {
            let grace = context.settings.ksqldb.grace_seconds;
            Box::new(KsqlEngine {
                valid,
                server,
                context,
                shown: shown(resource, grace, Timestamp::now()),
            })
        }
    }
}

fn services<'a>(
    valid: &'a ValidGroup,
    kafka: &'a KafkaSettings,
    (table, consumer_groups): (&'a ControlState, &'a BTreeMap<GroupName, String>),
    context: &'a Context<'a>,
) -> Services<'a> {
    Services {
        valid,
        context,
        kafka,
        table,
        consumer_groups,
    }
}

fn table(kafka: &KafkaSettings, context: &Context<'_>) -> Option<ControlState> {
    context.groups.table(kafka).ok().flatten()
}

async fn kafka_of(
    valid: &ValidGroup,
    context: &Context<'_>,
) -> Result<KafkaSettings, PlatformError> {
    kafka_connection::for_operator(
        &valid.kafka,
        &context.settings.kafka,
        &valid.identity.namespace,
        context.platform,
        context.kafka_files,
    )
    .await
}

async fn delete_topic(
    group: &Group,
    kafka: &KafkaSettings,
    context: &Context<'_>,
) -> Result<(), PlatformError> {
    let deleted = context.groups.delete_topic(kafka, &group.topic);
    deleted.await.map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> PlatformError {
    PlatformError::Failed {
        what: "bring the groups about".to_owned(),
        why: error.to_string(),
    }
}

/// Removes all workloads that run for a resource.
async fn remove_workloads(
    identity: &Identity,
    context: &Context<'_>,
) -> Result<Removal, PlatformError> {
    let owner = identity.owner("AssetGroup");
    let own = context.platform.owned(&identity.namespace, &owner).await?;
    let mut gone = true;
    for id in own {
        gone &= context.platform.remove(&id).await?;
    }
    Ok(if gone {
        Removal::Done
    } else {
        Removal::UnderWay
    })
}
