//! What a subscription asks the replay service, and what comes back.

use std::sync::Arc;

use super::service::ReplayError;
use crate::event::Event;
use crate::item::Gap;
use crate::sequencer::Heads;

/// What a subscription watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One asset.
    Asset(String),
    /// All assets of a shard.
    Shard(String),
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) scope: Scope,
    /// For each partition the first offset asked for; none at first, when only the topic's end is asked for.
    pub(crate) since: Heads,
    /// Other first offsets, for the asset.
    pub(crate) from: Heads,
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// How far the answer reaches.
    Heads {
        topic: String,
        next: Heads,
    },
    /// What can no longer be had.
    Gap(Gap),
    Event(Event),
    /// All that was asked for of a partition below this offset has come.
    Reached {
        partition: u32,
        next: u64,
    },
    /// The answer is complete.
    End,
    /// Nobody answers, or the answer broke off.
    Failed(Arc<ReplayError>),
}

impl Part {
    /// Whether the service has said this, if only that one is to come back later.
    pub(super) fn comes_of_the_service(&self) -> bool {
        match self {
            Self::Failed(why) => why.is_for_now(),
            _ => true,
        }
    }
}
