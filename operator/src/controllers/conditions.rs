//! Conditions as a pure merge of what was said before and what is found now.

use jiff::Timestamp;
use ofa_crds::api::{Condition, ConditionStatus, READY, RECONCILING, STALLED, set_condition};

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

    fn of(state: Progress, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            state,
            reason,
            message: message.into(),
            serves: state == Progress::Reached,
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
    let mut set = |kind: &str, holds: bool| {
        let status = if holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
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
    conditions
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
        let second = merge(&first, &Outcome::under_way("B", "b"), Some(2), at(10));
        assert_eq!(second[0].last_transition_time, "1970-01-01T00:00:00Z");
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
}
