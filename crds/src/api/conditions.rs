//! Conditions as the Kubernetes API conventions and kstatus read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The resource serves, at the observed generation.
pub const READY: &str = "Ready";
/// Work towards the spec is under way (kstatus: InProgress).
pub const RECONCILING: &str = "Reconciling";
/// The spec cannot be reached without somebody's help (kstatus: Failed). The message says what to do.
pub const STALLED: &str = "Stalled";

/// A newer operator would run something in another way, and does so only when users ask for it.
pub const ROLLOUT_PENDING: &str = "RolloutPending";

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}

/// One aspect of a resource's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the aspect, in CamelCase.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation of the spec this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed (RFC 3339, UTC).
    pub last_transition_time: String,
    /// Why, as one CamelCase word.
    pub reason: String,
    /// Why, for people, and what to do about it.
    pub message: String,
}

/// Puts `new` into `conditions`, in place of one of its type; the time of the last transition stays
/// where the status does.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.kind == new.kind) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time
                    .clone_from(&old.last_transition_time);
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: ConditionStatus, time: &str, message: &str) -> Condition {
        Condition {
            kind: READY.into(),
            status,
            observed_generation: Some(1),
            last_transition_time: time.into(),
            reason: "Test".into(),
            message: message.into(),
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set_condition(
            &mut conditions,
            condition(ConditionStatus::False, "t1", "a"),
        );
        set_condition(
            &mut conditions,
            condition(ConditionStatus::False, "t2", "b"),
        );
        assert_eq!(conditions, [condition(ConditionStatus::False, "t1", "b")]);
        set_condition(&mut conditions, condition(ConditionStatus::True, "t3", "c"));
        assert_eq!(conditions, [condition(ConditionStatus::True, "t3", "c")]);
    }
}
