//! The pure cores ([`crate::commit`], [`crate::publish::window`]) against models of what surrounds them,
//! in schedules drawn from a seed: a group coordinator that revokes and fences, and NATS nodes that keep
//! what clients sent and what goes to other nodes in *separate* buffers, each lost when the node dies.
//!
//! A schedule fails when an offset is committed that a second node has not, when a subscriber sees
//! events of an asset out of order after dropping repetitions by cursor, or when in the end something has
//! not arrived. To show that it would notice, [`Defect`]s are put in on purpose: each has to be caught.
//!
//! `OFA_SIM_SCHEDULES` sets the number of schedules, `OFA_SIM_SEED` repeats one.

mod forwarder;
mod nats;
mod world;

use world::World;

/// Schedules in a normal test run; `OFA_SIM_SCHEDULES` sets more.
const SCHEDULES: u64 = 1_000;

/// Schedules within which each defect has to be caught.
const SCHEDULES_PER_DEFECT: u64 = 400;

/// A mistake that somebody could make, put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// Counts a batch as delivered when it is written to the socket.
    CommitOnFlush,
    /// Counts a batch as delivered when the node published to has read it.
    CommitOnPong,
    /// Commits the offset behind the last record taken.
    CommitWhatWasTaken,
    /// Commits the largest confirmed offset, past what another shard has not confirmed.
    CommitPastFailure,
    /// Commits what was taken when partitions are handed over.
    CommitTakenOnRevoke,
    /// Begins a new session without publishing again.
    ForgetOnReconnect,
    /// Publishes the newest unconfirmed batch only after a reconnect.
    ResendNewestOnly,
    /// Publishes unconfirmed batches again in the wrong order.
    ResendReversed,
    /// Takes a marker of an earlier session for one of this.
    MarkersOutliveSessions,
    /// Does not mind that a marker is missing.
    IgnoreMarkerGap,
    /// Confirms what is behind the marker too.
    MarkerConfirmsAll,
    /// Goes on behind the committed offset plus one.
    ResumeOnePast,
    /// Leaves out what a shard missed while it was away.
    SkipWhatWasMissed,
    /// Hands a shard that catches up the newest records first.
    RejoinBeforeCaughtUp,
    /// Commits the head although a shard is behind.
    CommitHead,
}

impl Defect {
    const ALL: [Self; 15] = [
        Self::CommitOnFlush,
        Self::CommitOnPong,
        Self::CommitWhatWasTaken,
        Self::CommitPastFailure,
        Self::CommitTakenOnRevoke,
        Self::ForgetOnReconnect,
        Self::ResendNewestOnly,
        Self::ResendReversed,
        Self::MarkersOutliveSessions,
        Self::IgnoreMarkerGap,
        Self::MarkerConfirmsAll,
        Self::ResumeOnePast,
        Self::SkipWhatWasMissed,
        Self::RejoinBeforeCaughtUp,
        Self::CommitHead,
    ];
}

/// Runs one schedule; the error tells what went wrong.
fn run(seed: u64, defect: Option<Defect>) -> Result<(), String> {
    World::new(seed, defect).run()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_schedule_loses_reorders_or_commits_too_early() {
    let seeds = match number("OFA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OFA_SIM_SCHEDULES").unwrap_or(SCHEDULES),
    };
    for seed in seeds {
        if let Err(problem) = run(seed, None) {
            panic!("{problem}\nrepeat with OFA_SIM_SEED={seed}");
        }
    }
}

#[test]
fn every_defect_put_in_on_purpose_is_caught() {
    let missed: Vec<Defect> = Defect::ALL
        .into_iter()
        .filter(|&defect| (0..SCHEDULES_PER_DEFECT).all(|seed| run(seed, Some(defect)).is_ok()))
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
