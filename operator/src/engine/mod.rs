//! What makes derived streams: one trait, two engines. The native one is a workload of the platform, ksqlDB a server that
//! is told what to run.

pub mod ksqldb;

use std::collections::BTreeMap;

use async_trait::async_trait;
use ofa_crds::GroupName;
use ofa_crds::api::StreamAction;

use crate::controllers::conditions::Outcome;
use crate::platform::PlatformError;

/// A group and what its things are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The level's value.
    pub name: GroupName,
    /// Topic of its stream.
    pub topic: String,
    /// Assets in it.
    pub assets: u64,
}

/// Something that an engine is about to do to a stream, or does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The stream.
    pub stream: String,
    /// What.
    pub action: StreamAction,
    /// Why.
    pub message: String,
}

/// How streams are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// All of them together.
    pub outcome: Outcome,
    /// What is not as asked for yet.
    pub planned: Vec<Planned>,
    /// Records of the source not derived yet.
    pub lag: Option<u64>,
    /// By which consumer groups the source is read for the streams, as far as that is known.
    pub consumer_groups: BTreeMap<GroupName, String>,
    /// What is wrong with single groups.
    pub problems: BTreeMap<GroupName, String>,
    /// Whether nothing is left of those that were to be removed.
    pub removed: bool,
}

/// Makes and keeps the streams of groups. Answers by what is known at once; work that takes time goes on behind it.
#[async_trait]
pub trait StreamEngine: Send + Sync {
    /// Has the streams of `groups` made, and those of `leaving` removed. Topics stay.
    ///
    /// # Errors
    /// When the platform refuses.
    async fn ensure(&self, groups: &[Group], leaving: &[Group]) -> Result<Streams, PlatformError>;

    /// Ends what was done for the resource; removes the streams of `leaving`. Returns whether that is done.
    ///
    /// # Errors
    /// When the platform refuses, or with what keeps it from being done.
    async fn release(&self, leaving: &[Group]) -> Result<bool, PlatformError>;
}
