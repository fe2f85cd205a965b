//! What goes wrong, and when: drawn from a seed. Pure.

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Forwarders on the stage.
pub(super) const FORWARDERS: usize = 2;

/// Shards on the stage, of which the last comes and goes, and nodes of each.
pub(super) const SHARDS: usize = 3;
/// See [`SHARDS`].
pub(super) const NODES: usize = 2;

/// Steps of a schedule.
const STEPS: usize = 2;

/// What has been quiet for this long, in milliseconds, is disturbed again.
const QUIET_MS: (u64, u64) = (100, 1_000);

/// How long a fault lasts, in milliseconds.
const LASTS_MS: (u64, u64) = (200, 2_500);

/// A forwarder is frozen for so long, in milliseconds: for less and for more than its session in the group.
const FROZEN_MS: (u64, u64) = (1_000, 9_000);

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a forwarder; a new one starts later.
    KillForwarder(usize),
    /// SIGTERM, and a new one later: the pool shrinks and grows.
    StopForwarder(usize),
    /// SIGSTOP, SIGCONT: when it wakes, its partitions may be another's.
    FreezeForwarder(usize),
    /// `kill -9` of a NATS node (shard, node).
    KillNode(usize, usize),
    /// SIGSTOP, SIGCONT of a NATS node (shard, node).
    FreezeNode(usize, usize),
    /// `kill -9` of the router.
    KillRouter,
    /// `kill -9` of the replay service.
    KillReplay,
    /// `kill -9` of the broker.
    KillBroker,
    /// The last shard comes, or goes if it is there, or a change that is under way is called off. It goes on by itself
    /// for as long as it takes, while further faults happen.
    Reshard,
}

impl Fault {
    /// Whether both may be there at once. Two nodes of a shard may not: nobody promises anything then.
    fn goes_with(self, other: Self) -> bool {
        match (self, other) {
            (
                Self::KillNode(one, _) | Self::FreezeNode(one, _),
                Self::KillNode(two, _) | Self::FreezeNode(two, _),
            ) => one != two,
            (
                Self::KillForwarder(one) | Self::StopForwarder(one) | Self::FreezeForwarder(one),
                Self::KillForwarder(two) | Self::StopForwarder(two) | Self::FreezeForwarder(two),
            ) => one != two,
            // A second change would call off the first at once; and a stop that is to end well needs the broker for its
            // last commit.
            (Self::Reshard, Self::Reshard)
            | (Self::KillRouter, Self::KillRouter)
            | (Self::KillReplay, Self::KillReplay)
            | (Self::KillBroker, Self::KillBroker | Self::StopForwarder(_))
            | (Self::StopForwarder(_), Self::KillBroker) => false,
            _ => true,
        }
    }
}

/// Faults that begin together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long nothing happens before.
    pub quiet: Duration,
    /// One or two.
    pub faults: Vec<Fault>,
    /// How long they last.
    pub lasts: Duration,
}

/// What goes wrong, one step after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What it was drawn from.
    pub seed: u64,
    /// In order.
    pub steps: Vec<Step>,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let steps = (0..STEPS).map(|_| step(&mut rng)).collect();
        Self { seed, steps }
    }
}

fn step(rng: &mut SmallRng) -> Step {
    let mut faults = vec![fault(rng)];
    let second = fault(rng);
    if rng.random_bool(0.5) && faults[0].goes_with(second) {
        faults.push(second);
    }
    let frozen = faults
        .iter()
        .any(|it| matches!(it, Fault::FreezeForwarder(_)));
    let range = if frozen { FROZEN_MS } else { LASTS_MS };
    Step {
        quiet: millis(rng, QUIET_MS),
        faults,
        lasts: millis(rng, range),
    }
}

fn fault(rng: &mut SmallRng) -> Fault {
    let forwarder = rng.random_range(0..FORWARDERS);
    let (shard, node) = (rng.random_range(0..SHARDS), rng.random_range(0..NODES));
    let all = [
        Fault::KillForwarder(forwarder),
        Fault::StopForwarder(forwarder),
        Fault::FreezeForwarder(forwarder),
        Fault::KillNode(shard, node),
        Fault::FreezeNode(shard, node),
        Fault::KillBroker,
        Fault::Reshard,
        Fault::KillRouter,
        Fault::KillReplay,
    ];
    *all.choose(rng).unwrap_or(&Fault::KillBroker)
}

fn millis(rng: &mut SmallRng, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}:", self.seed)?;
        for Step {
            quiet,
            faults,
            lasts,
        } in &self.steps
        {
            write!(
                f,
                " {} ms quiet, {faults:?} for {} ms;",
                quiet.as_millis(),
                lasts.as_millis()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_everything_and_every_fault_comes_by() {
        assert_eq!(Schedule::draw(7), Schedule::draw(7));
        let schedules = (0..400).map(Schedule::draw);
        let faults = schedules.flat_map(|it| it.steps).flat_map(|it| it.faults);
        let kinds: BTreeSet<String> = faults.map(|fault| format!("{fault:?}")).collect();
        assert_eq!(kinds.len(), 3 * FORWARDERS + 2 * SHARDS * NODES + 4);
    }

    #[test]
    fn a_shard_never_loses_both_nodes_at_once() {
        for schedule in (0..2_000).map(Schedule::draw) {
            for step in schedule.steps {
                if let [one, two] = step.faults[..] {
                    assert!(one.goes_with(two), "{step:?}");
                }
            }
        }
    }
}
