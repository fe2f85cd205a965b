//! Conditions as a pure merge of what was said before and what is found now.

use jiff::Timestamp;
use ofa_crds::api::{
    Condition, ConditionStatus, READY, RECONCILING, ROLL_OUT_ANNOTATION, ROLLOUT_PENDING, STALLED,
    set_condition,
};

use crate::platform::{PlatformError, WorkloadState};

/// What a reconciliation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How far the resource is.
    pub state: Progress,
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people, with what to do.
    pub message: String,
    /// Whether the resource serves meanwhile.
    pub serves: bool,
    /// What a newer operator would do in another way, and does not do unasked.
    pub rollout_pending: Option<String>,
}

/// How far a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// As asked for.
    Reached,
    /// On the way.
    UnderWay,
    /// Nothing changes until somebody helps.
    Stalled,
}

impl Outcome {
    /// All is as asked for.
    pub fn ready(message: impl Into<String>) -> Self {
        Self::of(Progress::Reached, "Ready", message)
    }

    /// It is on the way.
    pub fn under_way(reason: &'static str, message: impl Into<String>) -> Self {
        Self::of(Progress::UnderWay, reason, message)
    }

    /// Somebody must help.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self::of(Progress::Stalled, reason, message)
    }

    /// The same of a resource that serves meanwhile.
    #[must_use]
    pub fn serving(self, serves: bool) -> Self {
        Self {
            serves: serves || self.state == Progress::Reached,
            ..self
        }
    }

    /// The same where a newer operator does not do unasked what it would do in another way.
    #[must_use]
    pub fn rollout_pending(self, what: String) -> Self {
        Self {
            rollout_pending: Some(what),
            ..self
        }
    }

    /// The same with what the platform holds back.
    #[must_use]
    pub fn held_back(self, state: &WorkloadState) -> Self {
        if !state.held_back || self.rollout_pending.is_some() {
            return self;
        }
        self.rollout_pending("this operator would run its instances in another way".to_owned())
    }

    fn of(state: Progress, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            state,
            reason,
            message: message.into(),
            serves: state == Progress::Reached,
            rollout_pending: None,
        }
    }
}

impl From<PlatformError> for Outcome {
    fn from(error: PlatformError) -> Self {
        if error.is_permanent() {
            Self::stalled(error.reason(), error.to_string())
        } else {
            Self::under_way(error.reason(), format!("{error}; trying again"))
        }
    }
}

/// The conditions after `outcome`. A time moves only where a status flips; a refused deletion that was
/// called off is forgotten.
#[must_use]
pub fn merge(
    old: &[Condition],
    outcome: &Outcome,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let ours =
        |condition: &&Condition| [READY, RECONCILING, STALLED].contains(&condition.kind.as_str());
    let mut conditions: Vec<Condition> = old.iter().filter(ours).cloned().collect();
    // Before anything is known about a resource nobody may take it for one that fails.
    let first_sight = conditions.is_empty() && outcome.state == Progress::UnderWay;
    let mut set = |kind: &str, holds: bool| {
        let status = match holds {
            true => ConditionStatus::True,
            false if kind == READY && first_sight => ConditionStatus::Unknown,
            false => ConditionStatus::False,
        };
        set_condition(
            &mut conditions,
            Condition {
                kind: kind.to_owned(),
                status,
                observed_generation: generation,
                last_transition_time: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                reason: outcome.reason.to_owned(),
                message: outcome.message.clone(),
            },
        );
    };
    set(READY, outcome.serves);
    set(RECONCILING, outcome.state == Progress::UnderWay);
    set(STALLED, outcome.state == Progress::Stalled);
    conditions.extend(pending(old, outcome, generation, now));
    conditions
}

/// What waits for a word of the users; nothing is said where nothing does.
fn pending(
    old: &[Condition],
    outcome: &Outcome,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Condition> {
    let what = outcome.rollout_pending.as_ref()?;
    let before = old
        .iter()
        .find(|condition| condition.kind == ROLLOUT_PENDING);
    let now = || now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some(Condition {
        kind: ROLLOUT_PENDING.to_owned(),
        status: ConditionStatus::True,
        observed_generation: generation,
        last_transition_time: before.map_or_else(now, |old| old.last_transition_time.clone()),
        reason: "OperatorUpgraded".to_owned(),
        message: format!(
            "{what}; it does so with the next change to what it runs, or at once when the annotation {ROLL_OUT_ANNOTATION} is changed"
        ),
    })
}

/// What the instances of a workload say about the resource they run for.
#[must_use]
pub fn of_instances(state: &WorkloadState) -> Option<Outcome> {
    let stuck = state.instances.iter().find(|instance| instance.stuck);
    if let Some(instance) = stuck {
        let message = instance
            .message
            .as_deref()
            .unwrap_or("it ends again and again");
        return Some(Outcome::stalled(
            "InstanceFails",
            format!("{}: {message}", instance.name),
        ));
    }
    if state.settled() {
        return None;
    }
    let (ready, current, wanted) = (state.ready(), state.current(), state.wanted);
    let trouble = state
        .instances
        .iter()
        .find_map(|i| Some(format!("; {}: {}", i.name, i.message.as_ref()?)))
        .unwrap_or_default();
    let message =
        format!("{ready} of {wanted} instances are ready, {current} are up to date{trouble}");
    Some(Outcome::under_way("InstancesNotReady", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_time_moves_only_when_a_status_flips() {
        let first = merge(&[], &Outcome::under_way("A", "a"), Some(1), at(0));
        assert_eq!(first[0].status, ConditionStatus::Unknown);
        let second = merge(&first, &Outcome::under_way("B", "b"), Some(2), at(10));
        assert_eq!(second[1].last_transition_time, "1970-01-01T00:00:00Z");
        assert_eq!(second[0].status, ConditionStatus::False);
        assert_eq!(
            (second[0].reason.as_str(), second[0].observed_generation),
            ("B", Some(2))
        );
        let third = merge(&second, &Outcome::ready("c"), Some(2), at(20));
        let times: Vec<&str> = third
            .iter()
            .map(|c| c.last_transition_time.as_str())
            .collect();
        assert_eq!(
            times,
            [
                "1970-01-01T00:00:20Z",
                "1970-01-01T00:00:20Z",
                "1970-01-01T00:00:00Z"
            ]
        );
    }

    #[test]
    fn what_waits_for_the_users_is_said_for_as_long_as_it_does() {
        let waits = Outcome::ready("a").rollout_pending("x".to_owned());
        let first = merge(&[], &waits, Some(1), at(0));
        let second = merge(&first, &waits, Some(1), at(10));
        assert_eq!(first, second);
        let last = second.last().unwrap();
        assert_eq!(
            (last.kind.as_str(), last.status),
            (ROLLOUT_PENDING, ConditionStatus::True)
        );
        let done = merge(&second, &Outcome::ready("a"), Some(1), at(20));
        assert!(
            done.iter()
                .all(|condition| condition.kind != ROLLOUT_PENDING)
        );
    }
}
