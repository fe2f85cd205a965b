//! Reads a whole topic, each partition from its beginning, says when all that stood there is read, and follows it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tracing::debug;

use super::{KafkaSettings, KafkaSettingsError};

/// How long to wait for a record before the caller may look whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// How long before a topic that is not there is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the topic is asked whether it has more partitions than before.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The context of a client whose errors are returned by its calls too, and told there if they matter: its own words
/// are a log at level debug.
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// A topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WholeTopicError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// Kafka's client refused.
    #[error("the topic cannot be read: {0}; check the Kafka settings")]
    Client(#[from] KafkaError),
}

/// What [`WholeTopic::poll`] found.
pub enum Polled<'a> {
    /// Nothing new.
    Nothing,
    /// The next record.
    Record(BorrowedMessage<'a>),
    /// All that stood in the topic when reading began has been told; said once.
    CaughtUp,
    /// The topic is not there or cannot be asked for; it is tried again.
    Missing(KafkaError),
    /// Reading fails at the moment; it is tried again.
    Failed(KafkaError),
}

/// A reader of a topic, outside of any group.
pub struct WholeTopic {
    ends: TopicEnds,
    /// Partitions that have not been read to their end yet.
    pending: BTreeSet<i32>,
    partitions: i32,
    counted_at: Option<Instant>,
    caught_up: bool,
}

impl WholeTopic {
    /// Connects lazily. `group` is a name that the client requires and does not use: nothing is committed.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn new(kafka: &KafkaSettings, topic: &str, group: &str) -> Result<Self, WholeTopicError> {
        let mut config = kafka.client_config()?;
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.error.backoff.ms", "100");
        Ok(Self {
            ends: TopicEnds {
                consumer: Arc::new(config.create_with_context(Quiet)?),
                topic: topic.to_owned(),
            },
            pending: BTreeSet::new(),
            partitions: 0,
            counted_at: None,
            caught_up: false,
        })
    }

    /// Tells the topic's ends, from any thread.
    #[must_use]
    pub fn ends(&self) -> TopicEnds {
        self.ends.clone()
    }

    /// Waits for what is next, a second at most.
    pub fn poll(&mut self) -> Polled<'_> {
        let recently = |at: Instant| at.elapsed() < PARTITIONS_INTERVAL;
        if !self.counted_at.is_some_and(recently) {
            match self.take_partitions() {
                Err(error) if self.partitions == 0 => {
                    std::thread::sleep(RETRY);
                    return Polled::Missing(error);
                }
                Err(error) => {
                    debug!(%error, topic = self.ends.topic, "partitions cannot be counted now");
                }
                Ok(()) => {}
            }
            self.counted_at = Some(Instant::now());
        }
        match self.ends.consumer.poll(POLL) {
            Some(Ok(record)) => return Polled::Record(record),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.pending.remove(&partition);
            }
            Some(Err(error)) => return Polled::Failed(error),
            None => {}
        }
        if self.caught_up || !self.pending.is_empty() {
            return Polled::Nothing;
        }
        self.caught_up = true;
        Polled::CaughtUp
    }

    /// Begins to read partitions that are new.
    fn take_partitions(&mut self) -> Result<(), KafkaError> {
        let count = self.ends.partitions()?;
        if count == 0 {
            let code = RDKafkaErrorCode::UnknownTopicOrPartition;
            return Err(KafkaError::MetadataFetch(code));
        }
        let mut fresh = TopicPartitionList::new();
        for partition in self.partitions..count {
            fresh.add_partition_offset(&self.ends.topic, partition, Offset::Beginning)?;
        }
        if fresh.count() > 0 {
            self.ends.consumer.incremental_assign(&fresh)?;
            self.pending.extend(self.partitions..count);
            self.partitions = count;
        }
        Ok(())
    }
}

/// Tells where a topic ends at present.
#[derive(Clone)]
pub struct TopicEnds {
    consumer: Arc<BaseConsumer<Quiet>>,
    topic: String,
}

impl TopicEnds {
    /// Asks Kafka for the offset behind the last record of each partition; 0 where there is none to read.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn ask(&self) -> Result<Vec<(i32, i64)>, KafkaError> {
        let end = |partition| {
            let watermarks =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT);
            watermarks.map(|(low, high)| (partition, if low == high { 0 } else { high }))
        };
        (0..self.partitions()?).map(end).collect()
    }

    fn partitions(&self) -> Result<i32, KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)?;
        let topic = metadata.topics().first();
        let count = topic.map_or(0, |topic| topic.partitions().len());
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}
