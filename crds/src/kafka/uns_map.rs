//! Keeps the directory as the compacted UNS map is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{KafkaSettings, KafkaSettingsError};
use crate::groups::{Directory, GroupingStrategy, UnsEntry};
use crate::names::asset_of_key;

/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// How long before a topic that is not there is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the topic is asked whether it has more partitions than before.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The UNS map cannot be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// Kafka's client refused.
    #[error("the UNS map cannot be followed: {0}; check the Kafka settings")]
    Client(#[from] KafkaError),
    /// No thread is to be had.
    #[error("the UNS map cannot be followed: {0}; allow this program more threads")]
    Thread(#[from] std::io::Error),
}

/// Assets and their groups, kept as the UNS map is for as long as this is held.
#[derive(Clone)]
pub struct DirectoryReader {
    /// What is known.
    pub directory: Arc<RwLock<Directory>>,
    /// A number that changes whenever something else is known.
    pub news: watch::Receiver<u64>,
}

impl DirectoryReader {
    /// Begins to read the compacted topic of the map, on a thread of its own. A topic that is not there is waited for.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn follow(
        kafka: &KafkaSettings,
        topic: &str,
        strategy: impl GroupingStrategy + 'static,
    ) -> Result<Self, FollowError> {
        let mut config = kafka.client_config()?;
        config
            // Required by the client, not used: nothing is committed.
            .set("group.id", "ofa_uns_map_reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.error.backoff.ms", "100");
        let (sender, news) = watch::channel(0);
        let directory = Arc::new(RwLock::new(Directory::new(strategy)));
        let follower = Follower {
            consumer: config.create_with_context(Quiet)?,
            topic: topic.to_owned(),
            directory: Arc::clone(&directory),
            news: sender,
            pending: BTreeSet::new(),
            partitions: 0,
        };
        std::thread::Builder::new()
            .name("uns-map".to_owned())
            .spawn(move || follower.run())?;
        Ok(Self { directory, news })
    }
}

/// What goes wrong is returned by `poll` too, and told there if it matters.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Quiet {}

struct Follower {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    directory: Arc<RwLock<Directory>>,
    news: watch::Sender<u64>,
    /// Partitions that have not been read to their end yet.
    pending: BTreeSet<i32>,
    partitions: i32,
}

impl Follower {
    fn run(mut self) {
        let mut checked_at = None::<Instant>;
        while !self.news.is_closed() {
            if checked_at.is_none_or(|at| at.elapsed() >= PARTITIONS_INTERVAL) {
                match self.take_partitions() {
                    Err(error) if self.partitions == 0 => {
                        debug!(%error, topic = self.topic, "the UNS map is not there yet");
                        std::thread::sleep(RETRY);
                        continue;
                    }
                    Err(error) => debug!(%error, "the UNS map's partitions cannot be counted now"),
                    Ok(()) => {}
                }
                checked_at = Some(Instant::now());
            }
            self.step();
        }
    }

    fn step(&mut self) {
        match self.consumer.poll(POLL) {
            None => {}
            Some(Ok(record)) => self.take(&record),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let was_pending = self.pending.remove(&partition);
                if was_pending && self.pending.is_empty() {
                    self.directory.write().set_caught_up();
                    self.news.send_modify(|count| *count += 1);
                    info!(topic = self.topic, "the UNS map is read");
                }
            }
            Some(Err(error)) => {
                warn!(%error, "the UNS map cannot be read at the moment; what is known of it stays");
            }
        }
    }

    fn take(&self, record: &BorrowedMessage<'_>) {
        let applied = apply(&self.directory, record);
        self.news.send_modify(|count| *count += 1);
        if let Err(reason) = applied {
            let (partition, offset) = (record.partition(), record.offset());
            warn!(
                partition,
                offset, reason, "a record of the UNS map says nothing usable"
            );
        }
    }

    /// Begins to read partitions that are new.
    fn take_partitions(&mut self) -> Result<(), KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)?;
        let topic = metadata.topics().first();
        let count = topic.map_or(0, |topic| topic.partitions().len());
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        if count == 0 {
            let code = RDKafkaErrorCode::UnknownTopicOrPartition;
            return Err(KafkaError::MetadataFetch(code));
        }
        let mut fresh = TopicPartitionList::new();
        for partition in self.partitions..count {
            fresh.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        if fresh.count() > 0 {
            self.consumer.incremental_assign(&fresh)?;
            self.pending.extend(self.partitions..count);
            self.partitions = count;
        }
        Ok(())
    }
}

fn apply(directory: &RwLock<Directory>, record: &BorrowedMessage<'_>) -> Result<(), String> {
    let asset = asset_of_key(record.key()).map_err(|error| error.to_string())?;
    let entry = UnsEntry::parse(record.payload()).map_err(|error| error.to_string())?;
    let mut directory = directory.write();
    let applied = directory.apply(asset, entry.as_ref());
    applied.map_err(|error| error.to_string())
}
