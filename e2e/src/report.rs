//! The verdict: what Kafka holds against what subscribers received.

use std::collections::{HashMap, HashSet};
use std::fmt;

use anyhow::{Result, ensure};
use ofa_client::audit::{Expected, Received, Report};
use ofa_client::sequencer::{Origin, Sequencer};
use ofa_client::{Event, Item};
use serde::Deserialize;

use crate::kafka::Positions;

/// The outcome of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// After the client's deduplication: lost, reordered, duplicates that it removed or let pass.
    pub after: Report,
    /// Messages as they came.
    pub messages: u64,
    /// Of these, repetitions of a cursor on the same node.
    pub duplicates_before: u64,
    /// Events whose own count went back or repeated after deduplication, told by the payload alone.
    pub miscounted: u64,
}

impl Verdict {
    /// That everything was received, in order and, after deduplication, once.
    ///
    /// # Errors
    /// When it was not.
    pub fn must_be_perfect(&self) -> Result<()> {
        self.must_be_in_order()?;
        ensure!(
            self.after.lost == 0,
            "{} events lost: {}",
            self.after.lost,
            self.after.examples.join(", ")
        );
        Ok(())
    }

    /// The same, and that nothing was sent twice.
    ///
    /// # Errors
    /// When it was not.
    pub fn must_leave_no_trace(&self) -> Result<()> {
        self.must_be_perfect()?;
        ensure!(
            self.duplicates_before == 0,
            "{} events sent twice",
            self.duplicates_before
        );
        Ok(())
    }

    /// That whatever is missing was announced as a gap, and the rest came in order and once.
    ///
    /// # Errors
    /// When it was not.
    pub fn must_be_honest(&self) -> Result<()> {
        self.must_be_in_order()?;
        let silently = self.after.lost_silently;
        ensure!(
            silently == 0,
            "{silently} events lost without a word: {}",
            self.after.examples.join(", ")
        );
        Ok(())
    }

    fn must_be_in_order(&self) -> Result<()> {
        ensure!(
            self.after.events > 0,
            "nothing was expected, so nothing was tested"
        );
        ensure!(
            self.after.reordered == 0,
            "{} events out of order",
            self.after.reordered
        );
        ensure!(
            self.after.duplicates_after == 0,
            "{} events twice in spite of deduplication",
            self.after.duplicates_after
        );
        ensure!(
            self.miscounted == 0,
            "{} events whose own count says out of order or twice",
            self.miscounted
        );
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            events,
            lost,
            lost_silently,
            reordered,
            duplicates_after,
            poison,
            ..
        } = &self.after;
        write!(
            f,
            "{events} events, {lost} lost ({lost_silently} silently), {reordered} reordered, {} duplicates before \
             deduplication and {duplicates_after} after, {poison} poison records, {} messages",
            self.duplicates_before, self.messages
        )
    }
}

/// Compares what is expected with what was recorded, one log a shard, deduplicated as a client does.
#[must_use]
pub fn of_records(expected: &Expected, logs: &[Vec<Event>]) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut received, mut counts) = (Received::default(), Counts::default());
    for (index, log) in logs.iter().enumerate() {
        let (mut sequencer, mut seen) = (Sequencer::default(), HashSet::new());
        for event in log {
            verdict.messages += 1;
            if !seen.insert(event.cursor.clone()) {
                verdict.duplicates_before += 1;
            }
            let mut due = Vec::new();
            sequencer.push(event.clone(), Origin::Current, &mut due);
            for item in due {
                received.note(&index.to_string(), &item);
                counts.note(&item);
            }
        }
    }
    verdict.after = expected.compare(&received);
    verdict.miscounted = counts.wrong;
    verdict
}

/// Compares what is expected with what the client library yielded: a list of items for each subscription.
#[must_use]
pub fn of_items(expected: &Expected, lists: &[(String, Vec<Item>)]) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut received, mut counts) = (Received::default(), Counts::default());
    for (subscription, items) in lists {
        for item in items {
            received.note(subscription, item);
            counts.note(item);
            verdict.messages += u64::from(matches!(item, Item::Event(_) | Item::Stale(_)));
        }
    }
    verdict.after = expected.compare(&received);
    verdict.duplicates_before = verdict.after.duplicates;
    verdict.miscounted = counts.wrong;
    verdict
}

/// Events between the positions of two moments, summed over all partitions.
#[must_use]
pub fn distance(from: &Positions, to: &Positions) -> u64 {
    let behind = |(partition, end): (&u32, &u64)| {
        end.saturating_sub(from.get(partition).copied().unwrap_or(0))
    };
    to.iter().map(behind).sum()
}

/// The generator counts each asset's events, so the payload tells order without any of our own headers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    last: HashMap<String, u64>,
    wrong: u64,
}

/// What is read of an event: a thousand clients' events are too many to read all of each.
#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "VALUE")]
    count: u64,
}

impl Counts {
    /// Events that went back or repeated.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong
    }

    pub(crate) fn note(&mut self, item: &Item) {
        let Item::Event(event) = item else { return };
        let Ok(Counted { count }) = serde_json::from_slice(&event.payload) else {
            return;
        };
        match self.last.get_mut(&event.asset) {
            Some(last) if count <= *last => self.wrong += 1,
            Some(last) => *last = count,
            None => {
                self.last.insert(event.asset.clone(), count);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ofa_crds::Cursor;

    use super::*;
    use crate::load;

    fn event(offset: u64, prev: Option<u64>) -> Event {
        let at = jiff::Timestamp::UNIX_EPOCH;
        Event {
            cursor: Some(Cursor {
                topic: "t".to_owned(),
                partition: 0,
                offset,
            }),
            prev,
            moved_from: None,
            asset: "a".to_owned(),
            id: "count".to_owned(),
            payload: load::event(offset, at).into(),
            received_at: at,
        }
    }

    fn expected(events: u64) -> Expected {
        let mut expected = Expected::default();
        for offset in 0..events {
            let value = load::event(offset, jiff::Timestamp::UNIX_EPOCH);
            expected.record(0, offset, Some(b"a"), Some(value.as_bytes()));
        }
        expected
    }

    fn verdict(received: &[u64]) -> Verdict {
        let log = received
            .iter()
            .map(|&offset| event(offset, offset.checked_sub(1)))
            .collect();
        of_records(&expected(4), &[log])
    }

    #[test]
    fn repetitions_are_no_fault_once_they_are_dropped() {
        let verdict = verdict(&[0, 1, 2, 1, 2, 3]);
        assert_eq!((verdict.messages, verdict.duplicates_before), (6, 2));
        verdict.must_be_perfect().unwrap();
    }

    #[test]
    fn a_missing_event_is_a_fault_unless_it_was_announced() {
        let announced = verdict(&[0, 3]);
        assert!(announced.must_be_perfect().is_err());
        announced.must_be_honest().unwrap();
        assert!(verdict(&[0, 1, 2]).must_be_honest().is_err());
    }

    #[test]
    fn an_event_that_comes_after_a_later_one_is_a_fault() {
        assert!(verdict(&[0, 2, 1, 3]).must_be_honest().is_err());
    }

    #[test]
    fn nothing_expected_proves_nothing() {
        let verdict = of_records(&Expected::default(), &[Vec::new()]);
        assert!(verdict.must_be_perfect().is_err());
    }

    /// The cursors may lie, as when a forwarder numbers anew: the payload's own count does not.
    #[test]
    fn the_count_in_the_payload_is_looked_at_too() {
        let mut wrong = event(1, Some(0));
        wrong.payload = load::event(0, jiff::Timestamp::UNIX_EPOCH).into();
        let log = vec![event(0, None), wrong, event(2, Some(1)), event(3, Some(2))];
        assert!(of_records(&expected(4), &[log]).must_be_honest().is_err());
    }
}
