//! What coordinator and brokers know of the partitions that are written to. Pure.

use std::collections::HashMap;

use kafka_protocol::messages::TopicName;

/// The partitions of this epoch of the producer.
#[derive(Debug, Default)]
pub(super) struct Partitions(HashMap<(TopicName, i32), Partition>);

#[derive(Debug, Default)]
struct Partition {
    /// Number of the next record: the broker refuses batches that do not follow one another.
    next_sequence: i32,
    /// Whether the coordinator knows that the transaction writes to it.
    is_added: bool,
}

impl Partitions {
    /// The transaction writes to a partition; whether for the first time.
    pub(super) fn add(&mut self, topic: &TopicName, partition: i32) -> bool {
        !std::mem::replace(&mut self.of(topic, partition).is_added, true)
    }

    /// The number of the first of so many further records.
    pub(super) fn number(&mut self, topic: &TopicName, partition: i32, records: i32) -> i32 {
        let next = &mut self.of(topic, partition).next_sequence;
        std::mem::replace(next, following(*next, records))
    }

    /// The next transaction has to add its partitions again.
    pub(super) fn transaction_ended(&mut self) {
        for partition in self.0.values_mut() {
            partition.is_added = false;
        }
    }

    /// Brokers begin to count anew with each epoch.
    pub(super) fn epoch_begun(&mut self) {
        self.0.clear();
    }

    fn of(&mut self, topic: &TopicName, partition: i32) -> &mut Partition {
        self.0.entry((topic.clone(), partition)).or_default()
    }
}

/// Sequence numbers go on with 0 after the largest.
fn following(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::topic_name;

    #[test]
    fn numbers_go_on_over_transactions_and_begin_anew_with_an_epoch() {
        let (a, mut partitions) = (topic_name("a"), Partitions::default());
        assert!(partitions.add(&a, 0) && partitions.add(&a, 1));
        assert!(!partitions.add(&a, 0));
        let number = |partitions: &mut Partitions, records| partitions.number(&a, 0, records);
        assert_eq!([2, 3].map(|it| number(&mut partitions, it)), [0, 2]);
        partitions.transaction_ended();
        assert!(partitions.add(&a, 0));
        assert_eq!(number(&mut partitions, 1), 5);
        partitions.epoch_begun();
        assert!(partitions.add(&a, 0));
        assert_eq!(number(&mut partitions, 1), 0);
    }

    #[test]
    fn numbers_begin_again_behind_the_largest() {
        assert_eq!(following(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(following(i32::MAX, 1), 0);
        assert_eq!(following(i32::MAX - 1, 5), 3);
    }
}
