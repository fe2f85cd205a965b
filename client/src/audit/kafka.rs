//! Reads a piece of a topic, every record of it, with a plain consumer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ofa_crds::kafka::{KafkaSettings, KafkaSettingsError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use thiserror::Error;

use super::Expected;

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the consumer waits for the next record before it looks at the clock.
const POLL: Duration = Duration::from_millis(200);

/// How long the topic may stay silent before its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Offset by partition.
pub type Positions = BTreeMap<u32, u64>;

/// Why the topic could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// Kafka refused or could not be reached.
    #[error("the topic {topic} cannot be read: {source}; check the broker's address")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why.
        source: KafkaError,
    },
    /// Nothing came any more.
    #[error("the topic {topic} gives nothing more, though its end is not reached")]
    Silent {
        /// The topic.
        topic: String,
    },
}

/// The offset behind the last record of each partition. Blocks.
///
/// # Errors
/// When Kafka cannot be reached or has no such topic.
pub fn end_positions(settings: &KafkaSettings, topic: &str) -> Result<Positions, ReadError> {
    let consumer = consumer(settings, topic)?;
    let failed = |source| failed(topic, source);
    let metadata = consumer
        .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
        .map_err(failed)?;
    let partitions = metadata.topics().iter().flat_map(|it| it.partitions());
    let mut ends = Positions::new();
    for partition in partitions {
        let (_, end) = consumer
            .fetch_watermarks(topic, partition.id(), REQUEST_TIMEOUT)
            .map_err(failed)?;
        ends.insert(number(partition.id()), unsigned(end));
    }
    Ok(ends)
}

/// Reads the topic between two positions (the second one excluded; a partition without first position is
/// read from its beginning). Blocks.
///
/// # Errors
/// When the topic cannot be read.
pub fn read(
    settings: &KafkaSettings,
    topic: &str,
    from: &Positions,
    to: &Positions,
) -> Result<Expected, ReadError> {
    let consumer = consumer(settings, topic)?;
    let failed = |source| failed(topic, source);
    let mut left: Positions = to
        .iter()
        .filter(|(partition, end)| from.get(partition).copied().unwrap_or(0) < **end)
        .map(|(&partition, &end)| (partition, end))
        .collect();
    let mut assignment = TopicPartitionList::new();
    for &partition in left.keys() {
        let start = match from.get(&partition) {
            Some(&start) => Offset::Offset(signed(start)),
            None => Offset::Beginning,
        };
        assignment
            .add_partition_offset(topic, id(partition), start)
            .map_err(failed)?;
    }
    consumer.assign(&assignment).map_err(failed)?;
    let mut expected = Expected::default();
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let (partition, offset) = (number(message.partition()), unsigned(message.offset()));
                match left.get(&partition) {
                    Some(&end) if offset < end => {
                        expected.record(partition, offset, message.key(), message.payload());
                        if offset + 1 >= end {
                            left.remove(&partition);
                        }
                    }
                    _ => {
                        left.remove(&partition);
                    }
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&number(partition));
            }
            // The client goes on by itself after any other error.
            Some(Err(_)) | None if heard.elapsed() > PATIENCE => {
                return Err(ReadError::Silent {
                    topic: topic.to_owned(),
                });
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(expected)
}

fn consumer(settings: &KafkaSettings, topic: &str) -> Result<BaseConsumer, ReadError> {
    settings
        .client_config()?
        // librdkafka wants a group's name even where, as here, no group is joined.
        .set("group.id", "ofa-audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(|source| failed(topic, source))
}

fn failed(topic: &str, source: KafkaError) -> ReadError {
    ReadError::Kafka {
        topic: topic.to_owned(),
        source,
    }
}

/// Kafka never gives a negative partition or offset of a record.
fn number(partition: i32) -> u32 {
    u32::try_from(partition).unwrap_or_default()
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or_default()
}

fn id(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
