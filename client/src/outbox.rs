//! The bounded queue towards a subscription's consumer: full means told, never silently dropped.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::event::Event;
use crate::item::{Cause, Extent, Gap, Item};

/// Notices (moved, disconnected, ...) that wait beside a full queue at most; the oldest give way.
const MAX_NOTICES: usize = 32;

/// Items that wait beside a full queue because they were asked for: the consumer did nothing wrong when many come at
/// once. Some tens of MiB.
const MAX_BACKLOG: usize = 100_000;

/// The consumer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// First and last offset left out.
type Range = (u64, u64);

/// A queue that remembers what did not fit.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Item>,
    /// What goes out before anything else.
    backlog: VecDeque<Item>,
    missed: BTreeMap<(String, String, u32), Range>,
    /// Whether events without cursor were left out.
    missed_unknown: bool,
    notices: VecDeque<Item>,
}

impl Outbox {
    pub(crate) fn new(queue: mpsc::Sender<Item>) -> Self {
        Self {
            queue,
            backlog: VecDeque::new(),
            missed: BTreeMap::new(),
            missed_unknown: false,
            notices: VecDeque::new(),
        }
    }

    /// Waits for room and uses it for what waits. With nothing to send it waits until the consumer is gone.
    pub(crate) async fn attend(&mut self) -> Result<(), Closed> {
        if !self.is_behind() {
            self.queue.closed().await;
            return Err(Closed);
        }
        let permit = self.queue.reserve().await.map_err(|_| Closed)?;
        drop(permit);
        self.flush()
    }

    fn is_behind(&self) -> bool {
        self.has_backlog() || self.leaves_out()
    }

    /// Whether much waits: then nothing more should be asked for.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn leaves_out(&self) -> bool {
        self.missed_unknown || !self.missed.is_empty() || !self.notices.is_empty()
    }

    /// Queues an item that was asked for, or that waited for one: it finds room.
    pub(crate) fn push_patiently(&mut self, item: Item) -> Result<(), Closed> {
        if matches!(item, Item::Complete { .. }) && self.leaves_out() {
            // It would come before what was left out is named. The next one says it too.
            return Ok(());
        }
        self.backlog.push_back(item);
        self.flush()
    }

    /// Queues an item, or notes it where there is no room.
    pub(crate) fn push(&mut self, item: Item) -> Result<(), Closed> {
        self.flush()?;
        if self.has_backlog() && !self.leaves_out() && self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back(item);
            return Ok(());
        }
        if self.is_behind() {
            self.note(item);
            return Ok(());
        }
        match self.queue.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(item)) => {
                self.note(item);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(Closed),
        }
    }

    fn note(&mut self, item: Item) {
        match item {
            Item::Event(event) => self.note_event(&event),
            Item::Gap(Gap {
                asset: Some(asset),
                extent:
                    Extent::Missed {
                        topic,
                        partition,
                        first,
                        last,
                    }
                    | Extent::Possible {
                        topic,
                        partition,
                        first,
                        last,
                    },
                ..
            }) => self.note_range((asset, topic, partition), (first, last)),
            Item::Gap(_) => self.missed_unknown = true,
            Item::Stale(_) | Item::Complete { .. } => {}
            Item::Moved { .. } | Item::Disconnected { .. } | Item::Reconnected { .. } => {
                if self.notices.len() == MAX_NOTICES {
                    self.notices.pop_front();
                }
                self.notices.push_back(item);
            }
        }
    }

    fn note_event(&mut self, event: &Event) {
        match &event.cursor {
            Some(cursor) => {
                let lane = (event.asset.clone(), cursor.topic.clone(), cursor.partition);
                self.note_range(lane, (cursor.offset, cursor.offset));
            }
            None => self.missed_unknown = true,
        }
    }

    fn note_range(&mut self, lane: (String, String, u32), (first, last): Range) {
        let range = self.missed.entry(lane).or_insert((first, last));
        *range = (range.0.min(first), range.1.max(last));
    }

    /// Sends what waits, as far as there is room.
    fn flush(&mut self) -> Result<(), Closed> {
        while self.is_behind() {
            let permit = match self.queue.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(())) => return Ok(()),
                Err(TrySendError::Closed(())) => return Err(Closed),
            };
            if let Some(item) = self.backlog.pop_front() {
                permit.send(item);
                continue;
            }
            let Some(item) = self.missed.pop_first().map(as_gap).or_else(|| {
                std::mem::take(&mut self.missed_unknown).then(|| too_slow(None, Extent::Unknown))
            }) else {
                match self.notices.pop_front() {
                    Some(notice) => permit.send(notice),
                    None => return Ok(()),
                }
                continue;
            };
            permit.send(item);
        }
        Ok(())
    }
}

fn as_gap(((asset, topic, partition), (first, last)): ((String, String, u32), Range)) -> Item {
    let extent = Extent::Missed {
        topic,
        partition,
        first,
        last,
    };
    too_slow(Some(asset), extent)
}

fn too_slow(asset: Option<String>, extent: Extent) -> Item {
    Item::Gap(Gap {
        asset,
        extent,
        cause: Cause::SlowConsumer,
        state: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use ofa_crds::Cursor;

    use super::*;

    fn event(offset: u64) -> Item {
        Item::Event(Event {
            cursor: Some(Cursor {
                topic: "t".into(),
                partition: 0,
                offset,
            }),
            prev: None,
            moved_from: None,
            asset: "a".into(),
            id: "x".into(),
            payload: Bytes::new(),
            received_at: Timestamp::UNIX_EPOCH,
        })
    }

    fn gap(first: u64, last: u64) -> Item {
        as_gap((("a".into(), "t".into(), 0), (first, last)))
    }

    #[tokio::test]
    async fn what_does_not_fit_is_named_before_anything_else_follows() {
        let (queue, mut items) = mpsc::channel(2);
        let mut outbox = Outbox::new(queue);
        for offset in 0..5 {
            outbox.push(event(offset)).unwrap();
        }
        let moved = Item::Disconnected { shard: "C1".into() };
        outbox.push(moved.clone()).unwrap();
        assert_eq!(items.recv().await, Some(event(0)));
        assert_eq!(items.recv().await, Some(event(1)));
        outbox.push(event(5)).unwrap();
        assert_eq!(items.recv().await, Some(gap(2, 4)));
        assert_eq!(items.recv().await, Some(moved));
        outbox.push(event(6)).unwrap();
        assert_eq!(items.recv().await, Some(gap(5, 5)));
        assert_eq!(items.recv().await, Some(event(6)));
    }

    #[tokio::test]
    async fn what_was_asked_for_is_not_left_out_and_comes_first() {
        let (queue, mut items) = mpsc::channel(1);
        let mut outbox = Outbox::new(queue);
        for offset in 0..3 {
            outbox.push_patiently(event(offset)).unwrap();
        }
        outbox.push(event(3)).unwrap();
        for offset in 0..4 {
            assert_eq!(items.recv().await, Some(event(offset)));
            outbox.flush().unwrap();
        }
        outbox.push(event(4)).unwrap();
        outbox.push(event(5)).unwrap();
        assert_eq!(items.recv().await, Some(event(4)));
        outbox.flush().unwrap();
        assert_eq!(items.recv().await, Some(gap(5, 5)));
    }

    #[tokio::test]
    async fn what_waits_goes_out_as_soon_as_there_is_room() {
        let (queue, mut items) = mpsc::channel(1);
        let mut outbox = Outbox::new(queue);
        outbox.push(event(0)).unwrap();
        outbox.push(event(1)).unwrap();
        assert!(outbox.is_behind());
        assert_eq!(items.recv().await, Some(event(0)));
        outbox.attend().await.unwrap();
        assert!(!outbox.is_behind());
        assert_eq!(items.recv().await, Some(gap(1, 1)));
        drop(items);
        assert_eq!(outbox.push(event(2)), Err(Closed));
    }
}
