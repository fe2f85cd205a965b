//! How many forwarders there are to be by their lag: a pure decision.
//!
//! A step of one, then a look at what has come of it: every step makes the group hand its partitions around. Where Kafka
//! does not say how things are, nothing is done.

use jiff::{SignedDuration, Timestamp};
use ofa_crds::api::{Autoscaling, AutoscalingStatus};

use crate::controllers::control_plane::Progress;
use crate::platform::WorkloadState;

/// After a step the lag says nothing for a while: partitions change hands, and committed positions follow seconds later.
const AFTER_A_STEP: SignedDuration = SignedDuration::from_secs(20);

/// Fewer forwarders must do for this long before one goes: it costs little to keep it and two rebalances to be wrong.
const QUIET: SignedDuration = SignedDuration::from_mins(5);

/// What is known of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What the pool's spec allows.
    pub limits: &'a Autoscaling,
    /// Forwarders asked for now.
    pub replicas: u16,
    /// What runs of them.
    pub forwarders: Option<&'a WorkloadState>,
    /// How far they are.
    pub progress: Option<Progress>,
    /// Whether every forwarder acts by the published map.
    pub acknowledged: bool,
    /// What was decided before.
    pub before: Option<&'a AutoscalingStatus>,
    /// The time.
    pub now: Timestamp,
}

/// Decides.
#[must_use]
pub fn decide(seen: &Seen<'_>) -> AutoscalingStatus {
    let stays = |message: &str, quiet: bool| AutoscalingStatus {
        desired_replicas: seen.replicas,
        message: message.to_owned(),
        last_step: seen.before.and_then(|before| before.last_step.clone()),
        quiet_since: quiet.then(|| quiet_since(seen).to_string()),
    };
    let steps_to = |replicas, message: &str| AutoscalingStatus {
        desired_replicas: replicas,
        message: message.to_owned(),
        last_step: Some(seen.now.to_string()),
        quiet_since: None,
    };
    let Some(progress) = seen.progress else {
        return stays(
            "Kafka does not say how far the forwarders are; their number stays",
            false,
        );
    };
    let partitions = u16::try_from(progress.partitions).unwrap_or(u16::MAX);
    let most = seen.limits.max_replicas.min(partitions.max(1));
    let fewest = seen.limits.min_replicas.min(most);
    if seen.replicas > most {
        return steps_to(most, "more would have no partition, or are not allowed");
    }
    if seen.replicas < fewest {
        return steps_to(fewest, "fewer are not allowed");
    }
    if !is_settled(seen, progress) {
        return stays("the last change has not settled yet", false);
    }
    let enough = progress.lag.div_ceil(seen.limits.target_lag.max(1));
    let enough = u16::try_from(enough)
        .unwrap_or(u16::MAX)
        .clamp(fewest, most);
    if enough > seen.replicas {
        return steps_to(
            seen.replicas + 1,
            "the lag is more than these are to be left with",
        );
    }
    if enough == seen.replicas {
        return stays("the lag asks for these", false);
    }
    if seen.now.duration_since(quiet_since(seen)) >= QUIET {
        return steps_to(seen.replicas - 1, "fewer have been enough for a while");
    }
    stays("fewer would do; if that stays so, one goes", true)
}

fn time(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|text| text.parse().ok())
}

fn quiet_since(seen: &Seen<'_>) -> Timestamp {
    let before = seen
        .before
        .and_then(|before| time(before.quiet_since.as_ref()));
    before.unwrap_or(seen.now)
}

/// Whether what the last step has set off is over: all pods are there, each has its partitions, and each publishes by
/// the newest map.
fn is_settled(seen: &Seen<'_>, progress: Progress) -> bool {
    let last = seen
        .before
        .and_then(|before| time(before.last_step.as_ref()));
    let rested = last.is_none_or(|last| seen.now.duration_since(last) >= AFTER_A_STEP);
    let ready = seen
        .forwarders
        .is_some_and(|state| state.settled() && state.wanted == seen.replicas);
    rested && ready && seen.acknowledged && progress.members == Some(u32::from(seen.replicas))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::platform::{InstanceState, Owner, Phase, WorkloadId};

    fn forwarders(count: u16) -> WorkloadState {
        let instance = |ordinal| InstanceState {
            name: format!("f-{ordinal}"),
            ordinal,
            host: String::new(),
            phase: Phase::Running,
            ready: true,
            current: true,
            restarts: 0,
            stuck: false,
            process: None,
            message: None,
        };
        WorkloadState {
            id: WorkloadId::new("n", "f"),
            owner: Owner {
                kind: "ForwarderPool".into(),
                name: "f".into(),
                uid: "u".into(),
            },
            wanted: count,
            instances: (0..count).map(instance).collect(),
            held_back: false,
        }
    }

    const LIMITS: Autoscaling = Autoscaling {
        min_replicas: 1,
        max_replicas: 8,
        target_lag: 100,
    };

    fn progress(lag: u64, members: u32) -> Progress {
        Progress {
            partitions: 4,
            lag,
            rate: None,
            members: Some(members),
            assigned: Some(4),
            classic_members: members,
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    struct Pool {
        replicas: u16,
        before: Option<AutoscalingStatus>,
    }

    impl Pool {
        fn look(&mut self, progress: Option<Progress>, minute: i64) -> u16 {
            let state = forwarders(self.replicas);
            let decided = decide(&Seen {
                limits: &LIMITS,
                replicas: self.replicas,
                forwarders: Some(&state),
                progress,
                acknowledged: true,
                before: self.before.as_ref(),
                now: at(minute),
            });
            self.replicas = decided.desired_replicas;
            self.before = Some(decided);
            self.replicas
        }
    }

    #[test]
    fn lag_adds_one_forwarder_for_each_settled_rebalance_and_no_more_than_partitions() {
        let mut pool = Pool {
            replicas: 1,
            before: None,
        };
        let seen: Vec<u16> = (0..6)
            .map(|minute| {
                let members = u32::from(pool.replicas);
                pool.look(Some(progress(100_000, members)), minute)
            })
            .collect();
        assert_eq!(seen, [2, 3, 4, 4, 4, 4]);
    }

    #[test]
    fn nothing_happens_while_a_rebalance_is_under_way_or_kafka_is_silent() {
        let mut pool = Pool {
            replicas: 2,
            before: None,
        };
        assert_eq!(pool.look(Some(progress(100_000, 1)), 0), 2);
        let rebalancing = Progress {
            members: None,
            ..progress(100_000, 2)
        };
        assert_eq!(pool.look(Some(rebalancing), 1), 2);
        assert_eq!(pool.look(None, 2), 2);
        assert_eq!(pool.look(Some(progress(100_000, 2)), 3), 3);
        assert_eq!(
            pool.look(Some(progress(100_000, 3)), 3),
            3,
            "in the same minute"
        );
    }

    #[test]
    fn a_forwarder_goes_only_after_a_long_quiet_time() {
        let mut pool = Pool {
            replicas: 3,
            before: None,
        };
        assert_eq!(pool.look(Some(progress(0, 3)), 0), 3);
        assert_eq!(pool.look(Some(progress(0, 3)), 4), 3);
        assert_eq!(pool.look(Some(progress(250, 3)), 5), 3, "busy again");
        assert_eq!(pool.look(Some(progress(0, 3)), 6), 3);
        assert_eq!(pool.look(Some(progress(0, 3)), 10), 3);
        assert_eq!(pool.look(Some(progress(0, 3)), 11), 2);
        assert_eq!(pool.look(Some(progress(0, 2)), 12), 2);
        assert_eq!(pool.look(Some(progress(0, 2)), 17), 1);
        assert_eq!(
            pool.look(Some(progress(0, 1)), 60),
            1,
            "never below the fewest"
        );
    }

    proptest! {
        #[test]
        fn the_number_stays_within_its_limits_and_moves_by_one(
            replicas in 1u16..6, lag in 0u64..2000, members in proptest::option::of(0u32..6), quiet in 0i64..10
        ) {
            let state = forwarders(replicas);
            let before = AutoscalingStatus {
                desired_replicas: replicas,
                quiet_since: Some(at(0).to_string()),
                ..AutoscalingStatus::default()
            };
            let seen = Seen {
                limits: &LIMITS,
                replicas,
                forwarders: Some(&state),
                progress: Some(Progress { members, ..progress(lag, 0) }),
                acknowledged: true,
                before: Some(&before),
                now: at(quiet),
            };
            let decided = decide(&seen).desired_replicas;
            prop_assert!((1..=4).contains(&decided));
            prop_assert!(replicas > 4 || decided.abs_diff(replicas) <= 1);
            prop_assert!(replicas > 4 || members == Some(u32::from(replicas)) || decided == replicas);
        }
    }
}
