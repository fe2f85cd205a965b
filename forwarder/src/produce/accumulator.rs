//! Records that wait to be sent, in the batch of their partition. Pure.

use std::collections::HashMap;

use kafka_protocol::messages::TopicName;

use super::batch::{BatchBuilder, NewRecord};
use super::topic_name;

/// Bytes that are sent at once: with thousands of partitions each still has some twenty records then, so that what a batch costs is
/// little for each, and brokers take requests of 100 MiB (`socket.request.max.bytes`). As many are filled while they are sent.
const FLUSH_BYTES: usize = 16 * 1024 * 1024;

/// The largest batch of several records: topics take 1 MiB unless told otherwise (`max.message.bytes`).
const MAX_BATCH_BYTES: usize = 1_000_000;

/// A topic that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TopicId(pub(super) usize);

/// What has been handed over and is not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    ids: HashMap<String, TopicId>,
    topics: Vec<Topic>,
    /// Partitions with records.
    filled: Vec<(TopicId, usize)>,
    bytes: usize,
}

#[derive(Debug)]
struct Topic {
    name: TopicName,
    partitions: Vec<BatchBuilder>,
}

/// A partition's records, to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) topic: TopicId,
    pub(super) name: TopicName,
    pub(super) partition: usize,
    pub(super) batch: BatchBuilder,
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
            known.resize_with(partitions, BatchBuilder::default);
        }
        id
    }

    /// Whether a record can be added to those of its partition before they are sent.
    pub(crate) fn has_room(&self, to: (TopicId, usize), record: &NewRecord<'_>) -> bool {
        let batch = &self.topics[to.0.0].partitions[to.1];
        batch.count() == 0 || batch.len() + record.most_bytes() <= MAX_BATCH_BYTES
    }

    /// Adds a record to its partition's.
    pub(crate) fn push(&mut self, (topic, partition): (TopicId, usize), record: &NewRecord<'_>) {
        let batch = &mut self.topics[topic.0].partitions[partition];
        if batch.count() == 0 {
            self.filled.push((topic, partition));
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

    /// Takes all records, to be sent or forgotten: the partitions of a topic one after another.
    pub(crate) fn take(&mut self) -> Vec<Outgoing> {
        self.bytes = 0;
        let mut filled = std::mem::take(&mut self.filled);
        filled.sort_unstable();
        let take = |(id, partition): (TopicId, usize)| {
            let topic = &mut self.topics[id.0];
            Outgoing {
                topic: id,
                name: topic.name.clone(),
                partition,
                batch: topic.partitions[partition].take(),
            }
        };
        filled.into_iter().map(take).collect()
    }
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

    #[test]
    fn each_partition_has_one_batch_of_all_its_records() {
        let mut accumulator = Accumulator::default();
        let (a, b) = (accumulator.open("a", 2), accumulator.open("b", 1));
        assert_eq!(accumulator.open("a", 3), a);
        for to in [(a, 0), (b, 0), (a, 0), (a, 2)] {
            accumulator.push(to, &record(b"x"));
        }
        let taken = accumulator.take().into_iter();
        let taken: Vec<(String, usize, i32)> = taken
            .map(|it| (it.name.0.to_string(), it.partition, it.batch.count()))
            .collect();
        let name = str::to_owned;
        assert_eq!(
            taken,
            [(name("a"), 0, 2), (name("a"), 2, 1), (name("b"), 0, 1)]
        );
        assert!(accumulator.is_empty() && accumulator.take().is_empty());
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
}
