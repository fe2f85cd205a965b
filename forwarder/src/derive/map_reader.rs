//! Reads the compacted UNS map from its beginning, says when that is done, and follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ofa_crds::UnsEntry;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::names::asset_of_key;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::writer::Context;
use crate::consume::SourceError;
use crate::log_limit::LogLimit;

/// What the map's reader tells.
pub(crate) enum MapEvent {
    /// What the map now says of an asset; `None` when it is not registered.
    Entry {
        /// Partition and offset of the record.
        at: (i32, i64),
        asset: Box<str>,
        entry: Option<UnsEntry>,
    },
    /// A record that says nothing, passed over.
    Unreadable {
        /// Partition and offset of the record.
        at: (i32, i64),
    },
    /// All that stood in the map when reading began has been told.
    CaughtUp,
    /// The map's topic cannot be read, and why; it is tried again.
    Unavailable(String),
}

/// Records told ahead of the one who takes them in.
const AHEAD: usize = 10_000;

/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// How long before a topic that is not there is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the topic is asked whether it has more partitions than before.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Begins to read on a thread of its own; it ends with `stop`.
pub(crate) fn follow(
    kafka: &KafkaSettings,
    topic: &str,
    stop: CancellationToken,
) -> Result<MapFollower, SourceError> {
    let mut config = kafka.client_config()?;
    config
        // Required by the client, not used: partitions are assigned by hand and nothing is committed.
        .set("group.id", "ofa_derive_uns_map")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        // A new asset's events follow its registration closely.
        .set("fetch.wait.max.ms", "500")
        .set("fetch.error.backoff.ms", "100");
    let failed = |source| SourceError::Client {
        what: "read the UNS map",
        source,
    };
    let consumer = config.create_with_context(Context).map_err(failed)?;
    let consumer: Arc<BaseConsumer<Context>> = Arc::new(consumer);
    let (sender, receiver) = sync_channel(AHEAD);
    let follower = MapFollower {
        events: receiver,
        consumer: consumer.clone(),
        topic: topic.to_owned(),
        read: BTreeMap::new(),
    };
    let reader = MapReader {
        consumer,
        topic: topic.to_owned(),
        sender,
        stop,
        pending: BTreeSet::new(),
        partitions: 0,
        caught_up: false,
        log: LogLimit::default(),
    };
    std::thread::spawn(move || reader.run());
    Ok(follower)
}

/// Takes what the map's reader tells, and knows whether that is all.
pub(crate) struct MapFollower {
    events: Receiver<MapEvent>,
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    /// The offset behind what was taken of each partition.
    read: BTreeMap<i32, i64>,
}

impl MapFollower {
    /// The next event; waits for it at most this long.
    pub(crate) fn next(&mut self, wait: Duration) -> Option<MapEvent> {
        let event = self.events.recv_timeout(wait).ok()?;
        if let MapEvent::Entry { at, .. } | MapEvent::Unreadable { at } = &event {
            self.note_read(at.0, at.1 + 1);
        }
        Some(event)
    }

    /// Asks Kafka for the present ends of the map's partitions.
    pub(crate) fn ends(&self) -> Result<Vec<(i32, i64)>, KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)?;
        let count = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        let end = |partition| {
            let marks = self
                .consumer
                .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT);
            marks.map(|(low, high)| (partition, if low == high { 0 } else { high }))
        };
        (0..i32::try_from(count).unwrap_or(i32::MAX))
            .map(end)
            .collect()
    }

    /// Whether everything before these ends was taken.
    pub(crate) fn has_read(&self, ends: &[(i32, i64)]) -> bool {
        let read = |partition| self.read.get(&partition).copied().unwrap_or(0);
        ends.iter().all(|&(partition, end)| read(partition) >= end)
    }

    /// There is nothing to take before this offset.
    pub(crate) fn note_read(&mut self, partition: i32, offset: i64) {
        let read = self.read.entry(partition).or_insert(0);
        *read = offset.max(*read);
    }
}

struct MapReader {
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    sender: SyncSender<MapEvent>,
    stop: CancellationToken,
    /// Partitions that have not been read to their end yet.
    pending: BTreeSet<i32>,
    partitions: i32,
    caught_up: bool,
    log: LogLimit,
}

impl MapReader {
    fn run(mut self) {
        let mut checked_at = None::<Instant>;
        while !self.stop.is_cancelled() {
            if checked_at.is_none_or(|at| at.elapsed() >= PARTITIONS_INTERVAL) {
                match self.take_partitions() {
                    Ok(()) => checked_at = Some(Instant::now()),
                    Err(error) if self.partitions == 0 => {
                        let why =
                            format!("the UNS map's topic {} cannot be read: {error}", self.topic);
                        if self.sender.send(MapEvent::Unavailable(why)).is_err() {
                            return;
                        }
                        std::thread::sleep(RETRY);
                        continue;
                    }
                    Err(error) => {
                        debug!(%error, "the UNS map's partitions cannot be counted now");
                        checked_at = Some(Instant::now());
                    }
                }
            }
            if !self.step() {
                return;
            }
        }
    }

    /// Takes the next record; false when nobody listens any more.
    fn step(&mut self) -> bool {
        let event = match self.consumer.poll(POLL) {
            None => None,
            Some(Ok(record)) => read(&record, &mut self.log),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.pending.remove(&partition);
                None
            }
            Some(Err(error)) => {
                if let Some(held_back) = self.log.allow() {
                    warn!(%error, held_back, "the UNS map cannot be read at the moment; what is known of it stays");
                }
                None
            }
        };
        if event.is_some_and(|event| self.sender.send(event).is_err()) {
            return false;
        }
        if self.caught_up || !self.pending.is_empty() {
            return true;
        }
        self.caught_up = true;
        info!(topic = self.topic, "the UNS map is read");
        self.sender.send(MapEvent::CaughtUp).is_ok()
    }

    /// Begins to read partitions that are new.
    fn take_partitions(&mut self) -> Result<(), KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)?;
        let count = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        if count == 0 {
            let code = rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition;
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

fn read(record: &BorrowedMessage<'_>, log: &mut LogLimit) -> Option<MapEvent> {
    let read = asset_of_key(record.key())
        .map_err(|error| error.to_string())
        .and_then(|asset| match UnsEntry::parse(record.payload()) {
            Ok(entry) => Ok((asset, entry)),
            Err(error) => Err(error.to_string()),
        });
    let at = (record.partition(), record.offset());
    match read {
        Ok((asset, entry)) => Some(MapEvent::Entry {
            asset: asset.into(),
            entry,
            at,
        }),
        Err(reason) => {
            if let Some(held_back) = log.allow() {
                let (partition, offset) = (record.partition(), record.offset());
                warn!(
                    partition,
                    offset,
                    reason,
                    held_back,
                    "a record of the UNS map is passed over; what was known of its asset stays"
                );
            }
            Some(MapEvent::Unreadable { at })
        }
    }
}
