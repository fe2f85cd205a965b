//! Did everything arrive? Compares what a subscriber received with what is in Kafka.
//!
//! [`Received`] notes what comes, [`Expected`] is what the topic holds (read by [`kafka`]).

pub mod kafka;
mod offsets;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ofa_crds::names::asset_of_key;
use serde_json::{Map, Value};

use crate::event::Event;
use crate::item::{Extent, Gap, Item};
use offsets::Offsets;

/// Positions that are named in a report at most.
const MAX_EXAMPLES: usize = 10;

/// What one or several subscriptions on one topic have received.
#[derive(Debug, Default)]
pub struct Received {
    seen: HashMap<u32, Offsets>,
    highest: HashMap<u32, u64>,
    last: HashMap<(String, u32), HashMap<String, u64>>,
    announced: HashMap<String, Vec<(u32, u64, u64)>>,
    events: u64,
    reordered: u64,
    duplicates: u64,
    duplicates_after: u64,
    unknown_gaps: u64,
}

impl Received {
    /// Notes an item. `subscription` tells one from another: each has its own order, and what one has
    /// received already may come from another again while an asset moves between shards.
    pub fn note(&mut self, subscription: &str, item: &Item) {
        match item {
            Item::Event(event) => self.note_event(subscription, event),
            Item::Stale(event) => self.note_stale(event),
            Item::Gap(gap) => self.note_gap(gap),
            Item::Moved { .. }
            | Item::Disconnected { .. }
            | Item::Reconnected { .. }
            | Item::Complete { .. } => {}
        }
    }

    /// Events received, without repetitions.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether an event at or behind this position was received.
    #[must_use]
    pub fn has_reached(&self, partition: u32, offset: u64) -> bool {
        self.highest.get(&partition).is_some_and(|&it| it >= offset)
    }

    fn note_event(&mut self, subscription: &str, event: &Event) {
        let Some(cursor) = &event.cursor else { return };
        let (partition, offset) = (cursor.partition, cursor.offset);
        let is_new = self.seen.entry(partition).or_default().insert(offset);
        let lane = (subscription.to_owned(), partition);
        let assets = self.last.entry(lane).or_default();
        let in_order = match assets.get_mut(&event.asset) {
            Some(last) => std::mem::replace(last, offset.max(*last)) < offset,
            None => assets.insert(event.asset.clone(), offset).is_none(),
        };
        match (is_new, in_order) {
            (true, true) => self.events += 1,
            (true, false) => {
                self.events += 1;
                self.reordered += 1;
            }
            (false, true) => self.duplicates += 1,
            (false, false) => self.duplicates_after += 1,
        }
        let highest = self.highest.entry(partition).or_default();
        *highest = (*highest).max(offset);
    }

    /// A stale event that was seen before is a duplicate; one that was not came too late.
    fn note_stale(&mut self, event: &Event) {
        let Some(cursor) = &event.cursor else { return };
        let seen = self.seen.entry(cursor.partition).or_default();
        if seen.contains(cursor.offset) {
            self.duplicates += 1;
        } else {
            self.reordered += 1;
        }
    }

    fn note_gap(&mut self, gap: &Gap) {
        match (&gap.asset, &gap.extent) {
            (
                Some(asset),
                Extent::Missed {
                    partition,
                    first,
                    last,
                    ..
                }
                | Extent::Possible {
                    partition,
                    first,
                    last,
                    ..
                },
            ) => {
                let ranges = self.announced.entry(asset.clone()).or_default();
                ranges.push((*partition, *first, *last));
            }
            _ => self.unknown_gaps += 1,
        }
    }

    fn is_announced(&self, asset: &str, partition: u32, offset: u64) -> bool {
        let of_asset = self.announced.get(asset).into_iter().flatten();
        of_asset
            .into_iter()
            .any(|&(p, first, last)| p == partition && (first..=last).contains(&offset))
    }
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Events of assets in Kafka.
    pub events: u64,
    /// Of these, not received.
    pub lost: u64,
    /// Of the lost, not within a gap that the subscription announced either.
    pub lost_silently: u64,
    /// Events that came after a later one of the same asset on the same partition.
    pub reordered: u64,
    /// Repetitions that deduplication removed.
    pub duplicates: u64,
    /// Repetitions that were yielded in spite of it.
    pub duplicates_after: u64,
    /// Records that are no event of an asset, which nobody should receive.
    pub poison: u64,
    /// Gaps announced without saying where.
    pub unknown_gaps: u64,
    /// Some of the lost events, `<asset> at <partition>/<offset>`.
    pub examples: Vec<String>,
}

impl Report {
    /// Whether every event was received, in order and once.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        self.lost == 0 && self.reordered == 0 && self.duplicates_after == 0
    }
}

/// The events of assets between two positions of a topic: what must be received.
#[derive(Debug, Default)]
pub struct Expected {
    events: Vec<(u32, u64, Arc<str>)>,
    assets: HashSet<Arc<str>>,
    poison: u64,
}

impl Expected {
    /// Takes in one record of the topic.
    pub fn record(
        &mut self,
        partition: u32,
        offset: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let Some(asset) = asset_of_event(key, value) else {
            self.poison += 1;
            return;
        };
        let asset = match self.assets.get(asset) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = asset.into();
                self.assets.insert(Arc::clone(&new));
                new
            }
        };
        self.events.push((partition, offset, asset));
    }

    /// Compares it with what was received.
    #[must_use]
    pub fn compare(&self, received: &Received) -> Report {
        let mut report = Report {
            events: self.events.len() as u64,
            poison: self.poison,
            reordered: received.reordered,
            duplicates: received.duplicates,
            duplicates_after: received.duplicates_after,
            unknown_gaps: received.unknown_gaps,
            ..Report::default()
        };
        for (partition, offset, asset) in &self.events {
            let seen = received.seen.get(partition);
            if seen.is_some_and(|seen| seen.contains(*offset)) {
                continue;
            }
            report.lost += 1;
            if !received.is_announced(asset, *partition, *offset) {
                report.lost_silently += 1;
            }
            if report.examples.len() < MAX_EXAMPLES {
                report
                    .examples
                    .push(format!("{asset} at {partition}/{offset}"));
            }
        }
        report
    }
}

/// The asset of a record that forwarders must forward; `None` for poison, which they count and pass.
#[must_use]
pub fn asset_of_event<'a>(key: Option<&'a [u8]>, value: Option<&[u8]>) -> Option<&'a str> {
    let asset = asset_of_key(key).ok()?;
    let members: Map<String, Value> = serde_json::from_slice(value?).ok()?;
    let mut ids = members
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("id"));
    ids.any(|(_, id)| is_id(id)).then_some(asset)
}

fn is_id(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Number(_) | Value::Bool(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Cause;

    const EVENT: &[u8] = br#"{"ID":"x","VALUE":1}"#;

    fn event(asset: &str, offset: u64) -> Event {
        Event::of(asset, 0, offset)
    }

    fn compare(received: &Received, assets: &[&str]) -> Report {
        let mut expected = Expected::default();
        for (offset, asset) in (0..).zip(assets) {
            expected.record(0, offset, Some(asset.as_bytes()), Some(EVENT));
        }
        expected.compare(received)
    }

    fn received(items: &[Item]) -> Received {
        let mut received = Received::default();
        for item in items {
            received.note("C1", item);
        }
        received
    }

    #[test]
    fn all_there_is_perfect() {
        let received = received(&[0, 1, 2].map(|it| Item::Event(event("a", it))));
        let report = compare(&received, &["a", "a", "a"]);
        assert!(report.is_perfect());
        assert_eq!((report.events, report.lost), (3, 0));
        assert!(received.has_reached(0, 2) && !received.has_reached(0, 3));
    }

    #[test]
    fn what_is_missing_is_lost_whether_announced_or_not() {
        let gap = Gap {
            asset: Some("a".into()),
            extent: Extent::Missed {
                topic: "t".into(),
                partition: 0,
                first: 1,
                last: 2,
            },
            cause: Cause::Delivery,
            state: vec![],
        };
        let received = received(&[
            Item::Event(event("a", 0)),
            Item::Gap(gap),
            Item::Event(event("a", 3)),
        ]);
        let report = compare(&received, &["a", "b", "a", "a", "a"]);
        assert_eq!((report.lost, report.lost_silently), (3, 2));
        assert_eq!(report.examples, ["b at 0/1", "a at 0/2", "a at 0/4"]);
        assert!(!report.is_perfect());
    }

    #[test]
    fn repetitions_and_late_comers_are_told_apart() {
        let received = received(&[
            Item::Event(event("a", 0)),
            Item::Event(event("a", 2)),
            Item::Stale(event("a", 2)),
            Item::Stale(event("a", 1)),
        ]);
        let report = compare(&received, &["a", "a", "a"]);
        assert_eq!(
            (report.duplicates, report.reordered, report.lost),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_broken_deduplication_is_seen() {
        let received = received(&[0, 2, 2, 1].map(|it| Item::Event(event("a", it))));
        let report = compare(&received, &["a", "a", "a"]);
        assert_eq!((report.duplicates_after, report.reordered), (1, 1));
        assert!(!report.is_perfect());
    }

    #[test]
    fn an_asset_that_moves_may_come_from_two_shards() {
        let mut received = Received::default();
        for (shard, offset) in [("C1", 0), ("C2", 1), ("C1", 1), ("C2", 2)] {
            received.note(shard, &Item::Event(event("a", offset)));
        }
        let report = compare(&received, &["a", "a", "a"]);
        assert!(report.is_perfect());
        assert_eq!(report.duplicates, 1);
    }

    #[test]
    fn nobody_waits_for_poison() {
        let key = Some("a".as_bytes());
        for (key, value) in [
            (None, Some(EVENT)),
            (Some(&b""[..]), Some(EVENT)),
            (Some(&b"\xff"[..]), Some(EVENT)),
            (key, None),
            (key, Some(&b"{"[..])),
            (key, Some(b"[1]")),
            (key, Some(b"{}")),
            (key, Some(br#"{"id":null}"#)),
            (key, Some(br#"{"id":""}"#)),
        ] {
            assert_eq!(asset_of_event(key, value), None, "{key:?} {value:?}");
        }
        assert_eq!(asset_of_event(key, Some(br#"{"Id":7}"#)), Some("a"));
    }
}
