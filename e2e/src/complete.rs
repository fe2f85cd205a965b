//! How long after an interruption a subscriber had everything again.

use std::time::Duration;

use jiff::Timestamp;
use ofa_client::Item;

/// An event that comes later than this after it was written is late.
const LATE: Duration = Duration::from_millis(100);

/// One event, or that a connection stands, and when the subscriber was told.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// When the subscriber was told.
    pub at: Timestamp,
    /// When the event was written; `None` for a connection that stands again.
    pub written: Option<Timestamp>,
}

impl Told {
    /// What counts of the items that a subscription has yielded, with the moment of each.
    #[must_use]
    pub fn of(items: &[(Timestamp, Item)]) -> Vec<Self> {
        let told = |(at, item): &(Timestamp, Item)| {
            let written = match item {
                Item::Event(event) => {
                    let parsed = event.parsed().ok()?;
                    Some(parsed.timestamp()?.parse().ok()?)
                }
                Item::Reconnected { .. } => None,
                _ => return None,
            };
            Some(Self { at: *at, written })
        };
        items.iter().filter_map(told).collect()
    }

    fn is_late(&self) -> bool {
        self.written
            .is_some_and(|written| since(written, self.at) > LATE)
    }
}

/// What followed an interruption.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovery {
    /// From the interruption until all was there that was missed by it.
    pub complete: Duration,
    /// Events that were late after that.
    pub late_after: usize,
}

/// What followed an interruption `from`, before the next at `to`; `None` if the connection has not come back.
///
/// Missed is what was written before the connection stood again, and what is late of the events written before all of that had
/// arrived, and so on: a subscription that the nodes do not know yet misses events from the first on. As soon as events
/// come on time the stream is live, and what is late then is no longer due to the interruption but to a machine that had
/// something else to do for a tenth of a second.
#[must_use]
pub fn recovery(told: &[Told], from: Timestamp, to: Option<Timestamp>) -> Option<Recovery> {
    let within: Vec<&Told> = told
        .iter()
        .filter(|it| it.at >= from && to.is_none_or(|to| it.at < to))
        .collect();
    let connected = within.iter().find(|it| it.written.is_none())?.at;
    let latest = |before: Timestamp, wanted: &dyn Fn(&Told) -> bool| {
        let events = within.iter().filter(|it| wanted(it));
        let missed = events.filter(|it| it.written.is_some_and(|written| written <= before));
        missed.map(|it| it.at).max().unwrap_or(before).max(before)
    };
    let mut complete = latest(connected, &|_| true);
    loop {
        let next = latest(complete, &Told::is_late);
        if next == complete {
            break;
        }
        complete = next;
    }
    let late = within.iter().filter(|it| it.at > complete && it.is_late());
    Some(Recovery {
        complete: since(from, complete),
        late_after: late.count(),
    })
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + ms).unwrap()
    }

    fn event(written: i64, told: i64) -> Told {
        Told {
            at: at(told),
            written: Some(at(written)),
        }
    }

    fn connected(told: i64) -> Told {
        Told {
            at: at(told),
            written: None,
        }
    }

    fn after_kill(told: &[Told]) -> Option<(u128, usize)> {
        let recovery = recovery(told, at(0), Some(at(2_500)))?;
        Some((recovery.complete.as_millis(), recovery.late_after))
    }

    #[test]
    fn complete_is_when_the_last_event_from_before_the_connection_is_there() {
        let told = [
            event(-5, -1),
            connected(80),
            event(85, 90),
            event(-2, 95),
            event(70, 110),
            event(120, 125),
            event(2_400, 2_600),
        ];
        assert_eq!(after_kill(&told), Some((110, 0)));
    }

    #[test]
    fn what_the_new_connection_has_missed_from_its_beginning_counts() {
        let told = [
            connected(80),
            event(70, 100),
            event(90, 1_200),
            event(300, 1_250),
            event(1_230, 1_390),
            event(1_300, 1_305),
        ];
        assert_eq!(after_kill(&told), Some((1_390, 0)));
    }

    #[test]
    fn a_hiccup_when_all_was_there_does_not_count_and_is_told() {
        let told = [
            connected(80),
            event(70, 100),
            event(110, 112),
            event(1_000, 1_150),
            event(1_010, 1_150),
        ];
        assert_eq!(after_kill(&told), Some((100, 2)));
    }

    #[test]
    fn without_a_connection_nothing_is_complete() {
        assert_eq!(after_kill(&[event(0, 10)]), None);
    }
}
