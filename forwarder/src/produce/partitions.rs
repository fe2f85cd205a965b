//! What coordinator and brokers know of the partitions that are written to. Pure.

use super::accumulator::TopicId;
use crate::slot::slot;

/// The partitions of this epoch of the producer, by topic and number.
#[derive(Debug, Default)]
pub(super) struct Partitions(Vec<Vec<Partition>>);

#[derive(Debug, Default)]
pub(super) struct Partition {
    /// The broker that leads it, where that is known.
    pub(super) leader: Option<i32>,
    /// Number of the next record: the broker refuses batches that do not follow one another.
    next_sequence: i32,
    /// Whether the coordinator knows that the transaction writes to it.
    is_added: bool,
}

impl Partitions {
    pub(super) fn of(&mut self, topic: TopicId, partition: usize) -> &mut Partition {
        slot(slot(&mut self.0, topic.0), partition)
    }

    /// The broker that leads a partition, where that is known.
    pub(super) fn leader(&self, topic: TopicId, partition: usize) -> Option<i32> {
        self.0.get(topic.0)?.get(partition)?.leader
    }

    /// The next transaction has to add its partitions again.
    pub(super) fn transaction_ended(&mut self) {
        let all = self.0.iter_mut().flatten();
        all.for_each(|it| it.is_added = false);
    }

    /// Brokers begin to count anew with each epoch, and leaders may be why there is a new one.
    pub(super) fn epoch_begun(&mut self) {
        self.0.clear();
    }
}

impl Partition {
    /// The transaction writes to it; whether for the first time.
    pub(super) fn add(&mut self) -> bool {
        !std::mem::replace(&mut self.is_added, true)
    }

    /// The number of the first of so many further records.
    pub(super) fn number(&mut self, records: i32) -> i32 {
        let next = following(self.next_sequence, records);
        std::mem::replace(&mut self.next_sequence, next)
    }
}

/// The number of a partition as the protocol has it.
pub(super) fn index_of(partition: usize) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// Sequence numbers go on with 0 after the largest.
fn following(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_transactions_and_begin_anew_with_an_epoch() {
        let (a, mut partitions) = (TopicId(3), Partitions::default());
        assert!(partitions.of(a, 0).add() && partitions.of(a, 1).add());
        assert!(!partitions.of(a, 0).add());
        assert_eq!([2, 3].map(|it| partitions.of(a, 0).number(it)), [0, 2]);
        partitions.transaction_ended();
        assert!(partitions.of(a, 0).add());
        assert_eq!(partitions.of(a, 0).number(1), 5);
        partitions.epoch_begun();
        assert!(partitions.of(a, 0).add());
        assert_eq!(partitions.of(a, 0).number(1), 0);
    }

    #[test]
    fn numbers_begin_again_behind_the_largest() {
        assert_eq!(following(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(following(i32::MAX, 1), 0);
        assert_eq!(following(i32::MAX - 1, 5), 3);
    }
}
