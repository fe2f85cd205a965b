//! Keeps the directory as the compacted UNS map is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::UnsEntry;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::names::asset_of_key;
use parking_lot::RwLock;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Directory;
use crate::kafka;

/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// How long before a topic that is not there is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the topic is asked whether it has more partitions than before.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Begins to read on a thread of its own; it ends with `stop`.
pub(super) fn start(
    kafka: &KafkaSettings,
    topic: &str,
    directory: Arc<RwLock<Directory>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let settings = [("auto.offset.reset", "earliest")];
    let follower = Follower {
        consumer: kafka::consumer(kafka, "uns_map", &settings)?,
        topic: topic.to_owned(),
        directory,
        stop,
        pending: BTreeSet::new(),
        partitions: 0,
    };
    std::thread::Builder::new()
        .name("uns-map".to_owned())
        .spawn(move || follower.run())?;
    Ok(())
}

struct Follower {
    consumer: kafka::Consumer,
    topic: String,
    directory: Arc<RwLock<Directory>>,
    stop: CancellationToken,
    /// Partitions that have not been read to their end yet.
    pending: BTreeSet<i32>,
    partitions: i32,
}

impl Follower {
    fn run(mut self) {
        let mut checked_at = None::<Instant>;
        while !self.stop.is_cancelled() {
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
                    info!(topic = self.topic, "the UNS map is read");
                }
            }
            Some(Err(error)) => {
                warn!(%error, "the UNS map cannot be read at the moment; what is known of it stays");
            }
        }
    }

    fn take(&self, record: &BorrowedMessage<'_>) {
        if let Err(reason) = apply(&self.directory, record) {
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
