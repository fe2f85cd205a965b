//! The queue towards a subscription's consumer. What does not fit waits beside it, and meanwhile nothing more is taken in:
//! nothing is dropped here.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::item::Item;

/// The consumer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// A queue, and what is too much for it.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Item>,
    /// What came of one arrival, or of one part of an answer, and did not fit: the sequencer bounds it.
    rest: VecDeque<Item>,
}

impl Outbox {
    pub(crate) fn new(queue: mpsc::Sender<Item>) -> Self {
        Self {
            queue,
            rest: VecDeque::new(),
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

    /// Whether something waits for room: then nothing more is to be taken in, or asked for.
    pub(crate) fn is_behind(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Queues an item, or has it wait where there is no room.
    pub(crate) fn push(&mut self, item: Item) -> Result<(), Closed> {
        self.rest.push_back(item);
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
            if let Some(item) = self.rest.pop_front() {
                permit.send(item);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_and_goes_out_in_order() {
        let item = |number: u32| Item::Disconnected {
            shard: number.to_string(),
        };
        let (queue, mut items) = mpsc::channel(2);
        let mut outbox = Outbox::new(queue);
        for number in 0..5 {
            outbox.push(item(number)).unwrap();
            assert_eq!(outbox.is_behind(), number >= 2);
        }
        for number in 0..5 {
            assert_eq!(items.recv().await, Some(item(number)));
            if outbox.is_behind() {
                outbox.attend().await.unwrap();
            }
        }
        assert!(!outbox.is_behind());
        drop(items);
        assert_eq!(outbox.push(item(5)), Err(Closed));
    }
}
