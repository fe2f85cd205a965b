//! Whether producers put an asset where ksqlDB looks for it.
//!
//! ksqlDB joins partition by partition, and its table of assets is partitioned by murmur2. Events of a producer with
//! another partitioner (librdkafka's default, for one) find their asset on the same partition by chance only: of 300
//! assets on three partitions, 199 were missing.

use std::time::{Duration, Instant};

use ofa_crds::kafka::{ControlError, KafkaSettings};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

/// Events looked at on each partition: enough to meet every program that produces.
const SAMPLE: i64 = 100;

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the newest events show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Partitioning {
    /// Events looked at.
    pub seen: u64,
    /// Those that lie elsewhere than murmur2 puts them.
    pub misplaced: u64,
}

/// The partition that Kafka's own producer chooses for a key.
#[must_use]
pub fn murmur2_partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Kafka's hash of keys.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Looks at the newest events of a topic.
///
/// # Errors
/// When Kafka cannot be asked.
pub(super) fn look(
    kafka: &KafkaSettings,
    topic: &str,
) -> Result<Partitioning, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = kafka.client_config().map_err(ControlError::from)?;
    let consumer: BaseConsumer = config
        .set("group.id", "ofa_operator_partitioning")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().first();
    let partitions: Vec<i32> = found
        .into_iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    let mut from = TopicPartitionList::new();
    for &partition in &partitions {
        from.add_partition_offset(topic, partition, Offset::OffsetTail(SAMPLE))?;
    }
    consumer.assign(&from)?;
    let mut open = partitions.len();
    let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
    let mut result = Partitioning::default();
    let until = Instant::now() + PATIENCE;
    while open > 0 && Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(record)) => {
                let Some(key) = record.key() else { continue };
                result.seen += 1;
                let lies = u32::try_from(record.partition()).unwrap_or_default();
                result.misplaced += u64::from(murmur2_partition(key, count) != lies);
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of Kafka's own client.
    #[test]
    fn keys_hash_as_in_kafka() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
