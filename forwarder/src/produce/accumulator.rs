//! Records that wait to be sent, in the batch of their partition. Pure.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_protocol::messages::TopicName;

use super::batch::{BatchBuilder, NewRecord, ProducerIdentity};
use super::topic_name;

/// Bytes that are sent at once: with thousands of partitions each still has a dozen records then, and brokers take
/// requests of 100 MiB (`socket.request.max.bytes`). As many are filled while they are sent.
const FLUSH_BYTES: usize = 8 * 1024 * 1024;

/// The largest batch of several records: topics take 1 MiB unless told otherwise (`max.message.bytes`).
const MAX_BATCH_BYTES: usize = 1_000_000;

/// A topic that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicId(usize);

/// What has been handed over and is not sent yet, and the state that the transaction has each partition in.
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    ids: HashMap<String, TopicId>,
    topics: Vec<Topic>,
    /// Partitions with records, by topic and number.
    filled: Vec<(usize, usize)>,
    bytes: usize,
}

#[derive(Debug)]
struct Topic {
    name: TopicName,
    partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    batch: BatchBuilder,
    /// Number of the next record: the broker refuses batches that do not follow one another.
    next_sequence: i32,
    /// Whether the coordinator knows that the transaction writes to it.
    is_added: bool,
}

/// A partition's records, to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) topic: TopicName,
    pub(super) partition: i32,
    /// Whether the transaction writes to the partition for the first time.
    pub(super) is_new: bool,
    batch: BatchBuilder,
    base_sequence: i32,
}

impl Outgoing {
    pub(super) fn finish(self, producer: ProducerIdentity) -> Bytes {
        self.batch.finish(producer, self.base_sequence)
    }
}

impl Accumulator {
    /// A topic with so many partitions is going to be written to.
    pub(crate) fn open(&mut self, name: &str, partitions: usize) -> TopicId {
        let id = *self.ids.entry(name.to_owned()).or_insert_with(|| {
            self.topics.push(Topic {
                name: topic_name(name),
                partitions: Vec::new(),
            });
            TopicId(self.topics.len() - 1)
        });
        let known = &mut self.topics[id.0].partitions;
        if known.len() < partitions {
            known.resize_with(partitions, Partition::default);
        }
        id
    }

    /// Whether a record can be added to those of its partition before they are sent.
    pub(crate) fn has_room(&self, to: (TopicId, usize), record: &NewRecord<'_>) -> bool {
        let batch = &self.topics[to.0.0].partitions[to.1].batch;
        batch.count() == 0 || batch.len() + record.most_bytes() <= MAX_BATCH_BYTES
    }

    /// Adds a record to its partition's.
    pub(crate) fn push(&mut self, (topic, partition): (TopicId, usize), record: &NewRecord<'_>) {
        let batch = &mut self.topics[topic.0].partitions[partition].batch;
        if batch.count() == 0 {
            self.filled.push((topic.0, partition));
        }
        let before = batch.len();
        batch.push(record);
        self.bytes += batch.len() - before;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Whether enough is there to be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= FLUSH_BYTES
    }

    /// Takes all records, to be sent as part of the transaction.
    pub(crate) fn take(&mut self) -> Vec<Outgoing> {
        self.bytes = 0;
        let filled = std::mem::take(&mut self.filled);
        let take = |(topic, number): (usize, usize)| {
            let topic = &mut self.topics[topic];
            let partition = &mut topic.partitions[number];
            let batch = std::mem::take(&mut partition.batch);
            let base_sequence = partition.next_sequence;
            partition.next_sequence = following(base_sequence, batch.count());
            Outgoing {
                topic: topic.name.clone(),
                partition: i32::try_from(number).unwrap_or(i32::MAX),
                is_new: !std::mem::replace(&mut partition.is_added, true),
                batch,
                base_sequence,
            }
        };
        filled.into_iter().map(take).collect()
    }

    /// The transaction was committed: the next one has to name its partitions again.
    pub(crate) fn committed(&mut self) {
        for partition in self.partitions() {
            partition.is_added = false;
        }
    }

    /// The transaction was given up, and what waited for it; the producer has a new epoch, and counts anew.
    pub(crate) fn given_up(&mut self) {
        self.filled.clear();
        self.bytes = 0;
        for partition in self.partitions() {
            *partition = Partition::default();
        }
    }

    fn partitions(&mut self) -> impl Iterator<Item = &mut Partition> {
        let topics = self.topics.iter_mut();
        topics.flat_map(|topic| &mut topic.partitions)
    }
}

/// Sequence numbers go on with 0 after the largest.
fn following(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::EncodedHeaders;

    fn record(value: &[u8]) -> NewRecord<'_> {
        NewRecord {
            key: b"A",
            value,
            timestamp_ms: 1,
            headers: EncodedHeaders::default(),
            further: &[],
        }
    }

    fn taken(accumulator: &mut Accumulator) -> Vec<(String, i32, bool, i32, i32)> {
        let taken = accumulator.take().into_iter();
        taken
            .map(|it| {
                let topic = it.topic.0.to_string();
                (
                    topic,
                    it.partition,
                    it.is_new,
                    it.base_sequence,
                    it.batch.count(),
                )
            })
            .collect()
    }

    #[test]
    fn batches_of_a_partition_follow_one_another_over_transactions() {
        let mut accumulator = Accumulator::default();
        let (a, b) = (accumulator.open("a", 2), accumulator.open("b", 1));
        assert_eq!(accumulator.open("a", 3), a);
        for to in [(a, 0), (b, 0), (a, 0), (a, 2)] {
            accumulator.push(to, &record(b"x"));
        }
        let (name_a, name_b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(
            taken(&mut accumulator),
            [
                (name_a.clone(), 0, true, 0, 2),
                (name_b.clone(), 0, true, 0, 1),
                (name_a.clone(), 2, true, 0, 1)
            ]
        );
        assert!(accumulator.is_empty());
        accumulator.push((a, 0), &record(b"x"));
        assert_eq!(taken(&mut accumulator), [(name_a.clone(), 0, false, 2, 1)]);
        accumulator.committed();
        accumulator.push((a, 0), &record(b"x"));
        assert_eq!(taken(&mut accumulator), [(name_a.clone(), 0, true, 3, 1)]);
        accumulator.push((b, 0), &record(b"x"));
        accumulator.given_up();
        assert!(accumulator.is_empty());
        accumulator.push((a, 0), &record(b"x"));
        assert_eq!(taken(&mut accumulator), [(name_a, 0, true, 0, 1)]);
    }

    #[test]
    fn a_batch_stays_below_what_topics_take_unless_one_record_is_larger() {
        let mut accumulator = Accumulator::default();
        let to = (accumulator.open("a", 1), 0);
        let large = vec![b'x'; 600_000];
        let too_large = vec![b'x'; 2 * MAX_BATCH_BYTES];
        assert!(accumulator.has_room(to, &record(&too_large)));
        accumulator.push(to, &record(&large));
        assert!(!accumulator.has_room(to, &record(&large)));
        assert!(accumulator.has_room(to, &record(b"x")));
        assert!(!accumulator.is_full());
    }

    #[test]
    fn numbers_begin_again_behind_the_largest() {
        assert_eq!(following(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(following(i32::MAX, 1), 0);
        assert_eq!(following(i32::MAX - 1, 5), 3);
    }
}
