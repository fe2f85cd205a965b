//! What becomes of the published map when another one is wanted: a pure step from what is known.
//!
//! ```text
//! stable A -> DualPublish A|B -> Announce B|A -> stable B
//! ```
//! At every moment each forwarder publishes an asset's events at least to the shard that the asset's clients
//! are at:
//! - *DualPublish* moves no client, so it may be taken back or changed at any time.
//! - *Announce* sends clients to the new owners, once every forwarder has acknowledged that it publishes to
//!   both. An abort is an announcement of the old owners, and needs the same.
//! - *Commit* ends the double publishing, once every router tells of the new owners and clients have had time
//!   to ask.
//!
//! All that a step depends on is on the control topic or can be observed again, so an operator that was killed
//! goes on where it was; at most the clients' time to move begins anew.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{HandoverPhase, ShardMap};
use crate::ShardName;

/// Clients learn of a new owner by asking the router: ours within 10 s of being told, or where that was lost every 9 to 15 s, 2 s after
/// a failure, or every 8 to 13 s for each asset. So all of them have asked twice, and more often where that failed.
pub const GRACE: Duration = Duration::from_secs(30);

/// What a step is decided by.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The newest map on the control topic.
    pub published: Option<&'a ShardMap>,
    /// The map that the resources ask for; its epoch means nothing.
    pub wanted: &'a ShardMap,
    /// Shards of the wanted map that are not ready now.
    pub not_ready: &'a BTreeSet<ShardName>,
    /// A running forwarder that lacks the credentials of a wanted shard, if there is one.
    pub without_credentials: Option<&'a str>,
    /// Running forwarders that have not acknowledged the published map.
    pub forwarders_behind: &'a [String],
    /// Routers that have not acknowledged the published map.
    pub routers_behind: &'a [String],
    /// How long all routers have acknowledged the published map.
    pub routers_settled: Duration,
    /// How long clients are given from then on: [`GRACE`], where it is not known that they need less.
    pub grace: Duration,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// The published map is the wanted one.
    Nothing,
    /// This map takes the place of the published one.
    Publish(ShardMap),
    /// Something has to come about first.
    Wait(Reason),
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A forwarder is restarted with the credentials of a shard that is new to it.
    Credentials(String),
    /// Forwarders have to acknowledge that they publish to both.
    Forwarders(Vec<String>),
    /// Shards that get assets have to be ready.
    Shards(Vec<String>),
    /// Routers have to acknowledge the new owners.
    Routers(Vec<String>),
    /// Clients are given time to move.
    Clients(Duration),
}

/// The next step.
#[must_use]
pub fn step(seen: &Seen<'_>) -> Action {
    let Some(map) = seen.published else {
        return with_credentials(seen, || seen.wanted.clone().with_epoch(1));
    };
    match map.handover() {
        None => from_stable(seen, map),
        Some(HandoverPhase::DualPublish) => from_dual_publish(seen, map),
        Some(HandoverPhase::Announce) => from_announce(seen, map),
    }
}

/// The owners before and after the change that a map carries; the same twice where it carries none.
#[must_use]
pub fn ends(map: &ShardMap) -> (ShardMap, ShardMap) {
    let epoch = map.epoch();
    let before = map.clone().abort(epoch).commit(epoch);
    (before, map.clone().commit(epoch))
}

fn from_stable(seen: &Seen<'_>, map: &ShardMap) -> Action {
    let epoch = map.epoch() + 1;
    if !same_owners(map, seen.wanted) {
        return with_credentials(seen, || map.begin_handover(seen.wanted, epoch));
    }
    if same_addresses(map, seen.wanted) {
        Action::Nothing
    } else {
        Action::Publish(seen.wanted.clone().with_epoch(epoch))
    }
}

fn from_dual_publish(seen: &Seen<'_>, map: &ShardMap) -> Action {
    let epoch = map.epoch() + 1;
    let (before, after) = ends(map);
    if same_owners(&before, seen.wanted) {
        // No client was told of the new owners.
        return Action::Publish(seen.wanted.clone().with_epoch(epoch));
    }
    if !same_owners(&after, seen.wanted) {
        return with_credentials(seen, || before.begin_handover(seen.wanted, epoch));
    }
    if !same_addresses(map, seen.wanted) {
        return Action::Publish(before.begin_handover(seen.wanted, epoch));
    }
    if !seen.forwarders_behind.is_empty() {
        return Action::Wait(Reason::Forwarders(seen.forwarders_behind.to_vec()));
    }
    if !seen.not_ready.is_empty() {
        let shards = seen.not_ready.iter().map(ToString::to_string).collect();
        return Action::Wait(Reason::Shards(shards));
    }
    Action::Publish(map.clone().announce(epoch))
}

fn from_announce(seen: &Seen<'_>, map: &ShardMap) -> Action {
    let epoch = map.epoch() + 1;
    let (before, after) = ends(map);
    let goes_on = same_owners(&after, seen.wanted);
    if goes_on && !same_addresses(map, seen.wanted) {
        let readdressed = before.begin_handover(seen.wanted, epoch).announce(epoch);
        return Action::Publish(readdressed);
    }
    if !seen.forwarders_behind.is_empty() {
        return Action::Wait(Reason::Forwarders(seen.forwarders_behind.to_vec()));
    }
    if !goes_on && same_owners(&before, seen.wanted) {
        return Action::Publish(map.clone().abort(epoch));
    }
    // A third set of shards is wanted: this change is ended first, and the next begins from there.
    if !seen.routers_behind.is_empty() {
        return Action::Wait(Reason::Routers(seen.routers_behind.to_vec()));
    }
    match seen.grace.checked_sub(seen.routers_settled) {
        Some(left) if !left.is_zero() => Action::Wait(Reason::Clients(left)),
        _ => Action::Publish(map.clone().commit(epoch)),
    }
}

/// A running forwarder must be able to reach every shard of a map before it is told to use it.
fn with_credentials(seen: &Seen<'_>, map: impl FnOnce() -> ShardMap) -> Action {
    match seen.without_credentials {
        Some(forwarder) => Action::Wait(Reason::Credentials(forwarder.to_owned())),
        None => Action::Publish(map()),
    }
}

fn same_owners(one: &ShardMap, other: &ShardMap) -> bool {
    one.moves_to(other).is_empty()
}

/// Whether every shard of `wanted` is in the map as wanted.
fn same_addresses(map: &ShardMap, wanted: &ShardMap) -> bool {
    wanted
        .shards()
        .iter()
        .all(|shard| map.shards().contains(shard))
}

#[cfg(test)]
mod tests;
