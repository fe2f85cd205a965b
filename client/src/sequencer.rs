//! One ordered stream for each asset, also while it moves from one shard to another.
//!
//! While an asset moves, its events come from two shards, and the new one may be ahead. What comes from it
//! out of turn is held until the former shard has given what lies before, or until it is given up.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::item::{Cause, Extent, Gap, Item};
use crate::positions::{Positions, Verdict};

/// Most events held back during a move, about a second of a busy asset; more end the wait.
const MAX_HELD: usize = 10_000;

/// Which shard an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The shard that has the asset by the newest shard map.
    Current,
    /// The shard it moves away from.
    Former,
}

/// An asset on a partition of a topic.
type Lane = (String, String, u32);

/// Puts events in order, drops what was seen and names what is missing.
#[derive(Debug, Default)]
pub struct Sequencer {
    positions: Positions,
    held: Option<Held>,
}

#[derive(Debug, Default)]
struct Held {
    lanes: BTreeMap<Lane, BTreeMap<u64, Event>>,
    count: usize,
}

impl Sequencer {
    /// Notes that events may have been missed.
    pub fn interrupted(&mut self) {
        self.positions.interrupted();
    }

    /// From now on events of [`Origin::Current`] wait for what [`Origin::Former`] still has.
    pub fn begin_move(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Nothing is expected of the former shard any more: what is held goes out, gaps named.
    pub fn end_move(&mut self, out: &mut Vec<Item>) {
        let Some(held) = self.held.take() else { return };
        self.positions.moved();
        for event in held.lanes.into_values().flat_map(BTreeMap::into_values) {
            self.pass(event, out);
        }
    }

    /// Takes in an event and appends what is due now.
    pub fn push(&mut self, event: Event, origin: Origin, out: &mut Vec<Item>) {
        let Some(lane) = lane_of(&event) else {
            out.push(Item::Event(event));
            return;
        };
        if origin == Origin::Current && self.must_wait(&event) {
            self.hold(lane, event, out);
            return;
        }
        self.pass(event, out);
        self.release(&lane, out);
    }

    fn must_wait(&self, event: &Event) -> bool {
        self.held.is_some() && !self.is_settled(event)
    }

    fn is_settled(&self, event: &Event) -> bool {
        event
            .cursor
            .as_ref()
            .is_none_or(|cursor| self.positions.is_settled(&event.asset, cursor, event.prev))
    }

    fn hold(&mut self, lane: Lane, event: Event, out: &mut Vec<Item>) {
        let (Some(held), Some(cursor)) = (&mut self.held, &event.cursor) else {
            return;
        };
        let offset = cursor.offset;
        if held
            .lanes
            .entry(lane)
            .or_default()
            .insert(offset, event)
            .is_none()
        {
            held.count += 1;
        }
        if held.count > MAX_HELD {
            self.end_move(out);
            self.begin_move();
        }
    }

    /// Sends on what an event of this lane has made the next.
    fn release(&mut self, lane: &Lane, out: &mut Vec<Item>) {
        while let Some(event) = self.take_settled(lane) {
            self.pass(event, out);
        }
    }

    fn take_settled(&mut self, lane: &Lane) -> Option<Event> {
        let (_, event) = self.held.as_ref()?.lanes.get(lane)?.first_key_value()?;
        if !self.is_settled(event) {
            return None;
        }
        let held = self.held.as_mut()?;
        let events = held.lanes.get_mut(lane)?;
        let (_, event) = events.pop_first()?;
        if events.is_empty() {
            held.lanes.remove(lane);
        }
        held.count -= 1;
        Some(event)
    }

    fn pass(&mut self, event: Event, out: &mut Vec<Item>) {
        let Some(cursor) = &event.cursor else {
            out.push(Item::Event(event));
            return;
        };
        let (topic, partition) = (cursor.topic.clone(), cursor.partition);
        let extent = match self.positions.accept(&event.asset, cursor, event.prev) {
            Verdict::Stale => {
                out.push(Item::Stale(event));
                return;
            }
            Verdict::Fresh => None,
            Verdict::AfterGap { first, last } => Some(Extent::Missed {
                topic,
                partition,
                first,
                last,
            }),
            Verdict::AfterPossibleGap { first, last } => Some(Extent::Possible {
                topic,
                partition,
                first,
                last,
            }),
        };
        if let Some(extent) = extent {
            out.push(Item::Gap(Gap {
                asset: Some(event.asset.clone()),
                extent,
                cause: Cause::Delivery,
            }));
        }
        out.push(Item::Event(event));
    }
}

fn lane_of(event: &Event) -> Option<Lane> {
    let cursor = event.cursor.as_ref()?;
    Some((event.asset.clone(), cursor.topic.clone(), cursor.partition))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use ofa_crds::Cursor;
    use proptest::prelude::*;

    use super::*;

    /// Every third offset is the asset's.
    fn event(index: u64, knows_prev: bool) -> Event {
        Event {
            cursor: Some(Cursor {
                topic: "t".into(),
                partition: 0,
                offset: index * 3,
            }),
            prev: (knows_prev && index > 0).then(|| (index - 1) * 3),
            asset: "a".into(),
            id: "x".into(),
            payload: Bytes::new(),
            received_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn offsets(items: &[Item]) -> Vec<u64> {
        let offset = |item: &Item| match item {
            Item::Event(event) => event.cursor.as_ref().map(|cursor| cursor.offset / 3),
            _ => None,
        };
        items.iter().filter_map(offset).collect()
    }

    fn gaps(items: &[Item]) -> usize {
        items
            .iter()
            .filter(|item| matches!(item, Item::Gap(_)))
            .count()
    }

    #[test]
    fn what_the_former_shard_never_gives_becomes_a_gap() {
        let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
        sequencer.push(event(0, true), Origin::Current, &mut out);
        sequencer.begin_move();
        sequencer.push(event(3, true), Origin::Current, &mut out);
        sequencer.push(event(4, true), Origin::Current, &mut out);
        assert_eq!(offsets(&out), [0]);
        sequencer.end_move(&mut out);
        assert_eq!(offsets(&out), [0, 3, 4]);
        assert_eq!(gaps(&out), 1);
    }

    proptest! {
        /// The former shard has 0..=switch+overlap, the current one switch.., in any interleaving: the stream
        /// is complete and in order, and no gap is named.
        #[test]
        fn a_move_loses_and_reorders_nothing(
            count in 2..40u64,
            switch in 0..40u64,
            overlap in 0..10u64,
            first_is_seen: bool,
            knows_prev: bool,
            turns in proptest::collection::vec(any::<bool>(), 120),
        ) {
            let switch = switch % count;
            // Without knowledge of the event before, only an overlap can show that nothing is missing.
            let overlap = if knows_prev { overlap } else { count };
            let mut former = (0..(switch + overlap).min(count)).collect::<Vec<_>>().into_iter();
            let mut current = (switch..count).collect::<Vec<_>>().into_iter();
            let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
            if first_is_seen && let Some(index) = former.next() {
                sequencer.push(event(index, knows_prev), Origin::Current, &mut out);
            }
            sequencer.begin_move();
            let mut turns = turns.into_iter();
            loop {
                let former_first = turns.next().unwrap_or(true);
                let order = if former_first { [Origin::Former, Origin::Current] } else { [Origin::Current, Origin::Former] };
                let next = order.into_iter().find_map(|origin| {
                    let index = match origin { Origin::Former => former.next(), Origin::Current => current.next() };
                    index.map(|index| (origin, index))
                });
                let Some((origin, index)) = next else { break };
                sequencer.push(event(index, knows_prev), origin, &mut out);
            }
            sequencer.end_move(&mut out);
            prop_assert_eq!(offsets(&out), (0..count).collect::<Vec<_>>());
            prop_assert_eq!(gaps(&out), 0);
        }
    }
}
