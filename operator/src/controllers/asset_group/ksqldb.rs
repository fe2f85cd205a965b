//! The engine ksqlDB: one stream on a server for each group.

use std::collections::BTreeMap;

use async_trait::async_trait;
use ofa_crds::GroupName;
use ofa_crds::api::{AssetGroup, PlannedAction, StreamAction};

use super::groups::before;
use super::native;
use super::validate::{Engine, KsqlDb, ValidGroup, validate};
use crate::controllers::conditions::Outcome;
use crate::controllers::{Context, Settings};
use crate::engine::ksqldb::{Action, Claim, Identifier, KsqlError, StreamState, Wanted};
use crate::engine::{Group, Planned, StreamEngine, Streams};
use crate::platform::PlatformError;

/// The engine ksqlDB for one resource.
pub(super) struct KsqlEngine<'a> {
    pub(super) valid: &'a ValidGroup,
    pub(super) server: &'a KsqlDb,
    pub(super) context: &'a Context<'a>,
    /// What has stood in the resource's status for long enough.
    pub(super) shown: Vec<&'a PlannedAction>,
}

#[async_trait]
impl StreamEngine for KsqlEngine<'_> {
    async fn ensure(&self, groups: &[Group], leaving: &[Group]) -> Result<Streams, PlatformError> {
        // What derived natively by the spec before would write everything twice.
        for old in native::own(self.valid, self.context).await? {
            if !self.context.platform.remove(&old).await? {
                let outcome =
                    Outcome::under_way("Replacing", "what derived by the spec before is stopping");
                return Ok(unknown(outcome));
            }
        }
        let named = groups
            .iter()
            .map(|group| wanted(self.valid, self.server, group));
        let wanted = match named.collect::<Result<Vec<Wanted>, String>>() {
            Ok(wanted) => wanted,
            Err(why) => return Ok(unknown(Outcome::stalled("Invalid", why))),
        };
        let names: BTreeMap<Identifier, GroupName> = wanted
            .iter()
            .map(|wanted| (wanted.name.clone(), wanted.value.clone()))
            .collect();
        let claim = Claim {
            wanted,
            unwanted: self.streams(leaving),
            approved: self.approved(),
        };
        Ok(match self.claim(&claim) {
            Ok(Some(states)) => streams(&names, &states),
            Ok(None) => unknown(Outcome::under_way(
                "Asking",
                format!("ksqlDB at {} is being asked", self.server.url),
            )),
            Err(error @ (KsqlError::Url(_) | KsqlError::NotKsqlDb { .. })) => {
                unknown(Outcome::stalled("KsqlDbUnusable", error.to_string()))
            }
            Err(error) => unknown(Outcome::under_way(
                "KsqlDbAway",
                format!("{error}; trying again"),
            )),
        })
    }

    async fn release(&self, leaving: &[Group]) -> Result<bool, PlatformError> {
        if leaving.is_empty() {
            self.context.ksqldb.release(&self.owner());
            return Ok(true);
        }
        let claim = Claim {
            unwanted: self.streams(leaving),
            ..Claim::default()
        };
        let failed = |why: String| PlatformError::Failed {
            what: "drop the group's streams".to_owned(),
            why,
        };
        let states = self
            .claim(&claim)
            .map_err(|error| failed(error.to_string()))?;
        let Some(states) = states else {
            return Ok(false);
        };
        if let Some(problem) = states.values().find_map(|state| state.problem.clone()) {
            return Err(failed(problem));
        }
        if states.is_empty() {
            self.context.ksqldb.release(&self.owner());
        }
        Ok(states.is_empty())
    }
}

impl KsqlEngine<'_> {
    fn owner(&self) -> String {
        let identity = &self.valid.identity;
        format!("{}/{}", identity.namespace, identity.name)
    }

    fn claim(&self, claim: &Claim) -> Result<Option<BTreeMap<Identifier, StreamState>>, KsqlError> {
        let servers = self.context.ksqldb;
        servers.claim(&self.server.url, &self.owner(), claim)
    }

    fn streams(&self, groups: &[Group]) -> Vec<Identifier> {
        let named = groups.iter();
        named
            .filter_map(|group| stream(self.server, group).ok())
            .collect()
    }

    fn approved(&self) -> BTreeMap<Identifier, String> {
        let shown = self.shown.iter();
        shown
            .map(|planned| (Identifier::kept(&planned.stream), planned.message.clone()))
            .collect()
    }
}

/// The streams of ksqlDB that a resource asks for, for the groups its status tells of; none by another engine.
#[must_use]
pub fn streams_of(resource: &AssetGroup, settings: &Settings) -> Vec<Wanted> {
    let Ok(valid) = validate(resource, settings) else {
        return Vec::new();
    };
    let Engine::KsqlDb(server) = &valid.engine else {
        return Vec::new();
    };
    let groups = match &valid.value {
        Some(value) => vec![valid.group(value, 0)],
        None => before(resource, &valid),
    };
    let streams = groups.iter();
    streams
        .filter_map(|group| wanted(&valid, server, group).ok())
        .collect()
}

fn wanted(valid: &ValidGroup, server: &KsqlDb, group: &Group) -> Result<Wanted, String> {
    Ok(Wanted {
        name: stream(server, group)?,
        topic: group.topic.clone(),
        source_topic: valid.source_topic.clone(),
        source: server.source.clone(),
        map: server.map.clone(),
        level: valid.level.clone(),
        value: group.name.clone(),
        partitions: valid.partitions,
        retention_ms: valid.retention_ms,
    })
}

fn stream(server: &KsqlDb, group: &Group) -> Result<Identifier, String> {
    match &server.stream {
        Some(name) => Ok(name.clone()),
        None => Identifier::new(&group.name.stream()).map_err(|error| error.to_string()),
    }
}

fn unknown(outcome: Outcome) -> Streams {
    Streams {
        outcome,
        planned: Vec::new(),
        lag: None,
        consumer_groups: BTreeMap::new(),
        problems: BTreeMap::new(),
        removed: false,
    }
}

/// What the states of all streams come to.
fn streams(
    names: &BTreeMap<Identifier, GroupName>,
    states: &BTreeMap<Identifier, StreamState>,
) -> Streams {
    let mut planned = Vec::new();
    let mut problems = BTreeMap::new();
    for (name, state) in states {
        let Some((action, message)) = told(state) else {
            continue;
        };
        // The reason alone is what is planned: by it the plan is known again.
        let wrong = match &state.problem {
            Some(problem) => Some(format!("{message}; the last attempt failed: {problem}")),
            None if action == StreamAction::InPlace => None,
            None => Some(message.clone()),
        };
        if let (Some(group), Some(wrong)) = (names.get(name), wrong) {
            problems.insert(group.clone(), wrong);
        }
        planned.push(Planned {
            stream: name.as_str().to_owned(),
            action,
            message,
        });
    }
    let progress = |state: &StreamState| Some(state.progress.as_ref()?.lag);
    let lags = states.values().filter_map(progress);
    let read_by = |(name, state): (&Identifier, &StreamState)| {
        let consumer_group = state.progress.as_ref()?.consumer_group.clone()?;
        Some((names.get(name)?.clone(), consumer_group))
    };
    Streams {
        consumer_groups: states.iter().filter_map(read_by).collect(),
        outcome: outcome(&planned, names.len()),
        lag: (!names.is_empty()).then(|| lags.sum()),
        problems,
        removed: states.keys().all(|name| names.contains_key(name)),
        planned,
    }
}

fn told(state: &StreamState) -> Option<(StreamAction, String)> {
    match state.action.as_ref()? {
        Action::Nothing => None,
        Action::InPlace(_) => Some((StreamAction::InPlace, "it is being made".to_owned())),
        Action::Recreate { why } => Some((StreamAction::Recreate, why.clone())),
        Action::Refused { why } => Some((StreamAction::Refused, why.clone())),
        Action::AtCapacity { why } => Some((StreamAction::AtCapacity, why.clone())),
    }
}

/// The worst that is planned tells the story.
fn outcome(planned: &[Planned], streams: usize) -> Outcome {
    let find = |action| planned.iter().find(|planned| planned.action == action);
    let some_run = planned.len() < streams;
    let outcome = if let Some(refused) = find(StreamAction::Refused) {
        Outcome::stalled("StreamRefused", refused.message.clone())
    } else if let Some(full) = find(StreamAction::AtCapacity) {
        Outcome::stalled("AtCapacity", full.message.clone())
    } else if let Some(recreate) = find(StreamAction::Recreate) {
        let message = format!(
            "stream {} will be dropped and made again, since {}: what the source still holds is written to its topic once more; \
             spec.paused: true prevents it",
            recreate.stream, recreate.message
        );
        Outcome::under_way("RecreatePlanned", message)
    } else if let Some(made) = planned.first() {
        Outcome::under_way(
            "CreatingStreams",
            format!(
                "{} of {streams} streams to go: {}",
                planned.len(),
                made.message
            ),
        )
    } else {
        Outcome::ready(format!("ksqlDB runs the queries of {streams} groups"))
    };
    outcome.serving(some_run)
}
