//! The queue towards a subscription's consumer. What does not fit waits beside it, and meanwhile nothing more is taken
//! from the shard: nothing is dropped here.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::item::Item;

/// What a consumer that takes nothing for days is told of the connection afterwards at most, beyond that it was behind.
const MAX_NOTICES: usize = 32;

/// The consumer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// A queue, and what is too much for it.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Item>,
    /// What came of one message or one answer and did not fit: some tens of MiB at most.
    backlog: VecDeque<Item>,
    /// How many notices wait in the backlog.
    notices: usize,
}

impl Outbox {
    pub(crate) fn new(queue: mpsc::Sender<Item>) -> Self {
        Self {
            queue,
            backlog: VecDeque::new(),
            notices: 0,
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

    /// Whether something waits for room: then nothing more is to be asked for, or taken from a shard.
    pub(crate) fn is_behind(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Queues an item, or has it wait where there is no room.
    pub(crate) fn push(&mut self, item: Item) -> Result<(), Closed> {
        if is_notice(&item) {
            if self.notices == MAX_NOTICES {
                return Ok(());
            }
            self.notices += 1;
        }
        // Messages thrown away before they are read are told of one by one.
        if !(matches!(item, Item::Gap(_)) && self.backlog.back() == Some(&item)) {
            self.backlog.push_back(item);
        }
        self.flush()
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
                self.notices -= usize::from(is_notice(&item));
                permit.send(item);
            }
        }
        Ok(())
    }
}

/// Whether an item tells of the connection alone, which goes on while the consumer takes nothing.
fn is_notice(item: &Item) -> bool {
    match item {
        Item::Moved { .. } | Item::Disconnected { .. } | Item::Reconnected { .. } => true,
        Item::Event(_) | Item::Stale(_) | Item::Gap(_) | Item::Complete { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use ofa_crds::Cursor;

    use super::*;
    use crate::event::Event;
    use crate::item::{Cause, Gap};

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

    #[tokio::test]
    async fn what_does_not_fit_waits_and_goes_out_in_order() {
        let (queue, mut items) = mpsc::channel(2);
        let mut outbox = Outbox::new(queue);
        for offset in 0..5 {
            outbox.push(event(offset)).unwrap();
            assert_eq!(outbox.is_behind(), offset >= 2);
        }
        for offset in 0..5 {
            assert_eq!(items.recv().await, Some(event(offset)));
            if outbox.is_behind() {
                outbox.attend().await.unwrap();
            }
        }
        assert!(!outbox.is_behind());
        drop(items);
        assert_eq!(outbox.push(event(5)), Err(Closed));
    }

    #[tokio::test]
    async fn what_is_told_of_the_connection_meanwhile_is_bounded() {
        let (queue, mut items) = mpsc::channel(1);
        let mut outbox = Outbox::new(queue);
        let gap = Item::Gap(Gap::unknown(Cause::SlowConsumer));
        outbox.push(event(0)).unwrap();
        for _ in 0..1_000 {
            let shard = "C1".to_owned();
            outbox.push(Item::Disconnected { shard }).unwrap();
            outbox.push(gap.clone()).unwrap();
            outbox.push(gap.clone()).unwrap();
        }
        assert_eq!(outbox.backlog.len(), 2 * MAX_NOTICES);
        let mut gaps = 0;
        while let Ok(item) = items.try_recv() {
            gaps += usize::from(item == gap);
            outbox.flush().unwrap();
        }
        assert_eq!(gaps, MAX_NOTICES);
        assert_eq!((outbox.notices, outbox.is_behind()), (0, false));
    }
}
