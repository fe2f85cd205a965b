//! When a resource is looked at again.

use std::time::Duration;

use jiff::Timestamp;
use ofa_crds::api::{Condition, ConditionStatus, RECONCILING, STALLED};

/// Everything is looked at this often even if nothing seems to have changed. Changes are told by watches; this finds
/// what a watch has missed, and costs reads only.
const RESYNC: Duration = Duration::from_secs(600);

/// The first look after a step is taken this soon: much of what is waited for is told by no watch.
const SOONEST: Duration = Duration::from_secs(1);

/// What does not come about is looked at ever more rarely, but still this often.
const LATEST: Duration = Duration::from_secs(60);

/// When to look again: rarely at what is settled, soon at what has just begun to move, ever later at what does not
/// come about.
pub(super) fn retry_after(conditions: &[Condition], now: Timestamp) -> Duration {
    let open = conditions.iter().find(|condition| {
        [RECONCILING, STALLED].contains(&condition.kind.as_str())
            && condition.status == ConditionStatus::True
    });
    match open {
        None => RESYNC,
        Some(condition) => growing(condition.last_transition_time.parse().ok(), now),
    }
}

/// A quarter of the time it has taken so far.
pub(super) fn growing(since: Option<Timestamp>, now: Timestamp) -> Duration {
    let waited = since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
    Duration::from_secs_f64(waited.max(0.0) / 4.0).clamp(SOONEST, LATEST)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kube) fn condition(
        kind: &str,
        status: ConditionStatus,
        reason: &str,
    ) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status,
            observed_generation: None,
            last_transition_time: "2026-01-01T00:00:00Z".to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn what_does_not_come_about_is_looked_at_ever_more_rarely() {
        use ConditionStatus::{False, True};
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| {
            let open = [condition(RECONCILING, True, "A")];
            retry_after(&open, begin + jiff::SignedDuration::from_secs(seconds)).as_secs()
        };
        assert_eq!([after(0), after(40), after(100_000)], [1, 10, 60]);
        let settled = [
            condition("Ready", True, "A"),
            condition(STALLED, False, "A"),
        ];
        assert_eq!(retry_after(&settled, begin), RESYNC);
    }
}
