//! Reads the compacted UNS map from its beginning, says when that is done, and follows it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ofa_crds::UnsEntry;
use ofa_crds::kafka::{KafkaSettings, Polled, TopicEnds, WholeTopic};
use ofa_crds::names::asset_of_key;
use rdkafka::Message as _;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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

/// Begins to read on a thread of its own; it ends with `stop`.
pub(crate) fn follow(
    kafka: &KafkaSettings,
    topic: &str,
    stop: CancellationToken,
) -> Result<MapFollower, SourceError> {
    let reader = WholeTopic::new(kafka, topic, "ofa_derive_uns_map")?;
    let (sender, receiver) = sync_channel(AHEAD);
    let follower = MapFollower {
        events: receiver,
        ends: reader.ends(),
        read: BTreeMap::new(),
    };
    let reader = MapReader {
        reader,
        topic: topic.to_owned(),
        sender,
        stop,
        log: LogLimit::default(),
    };
    std::thread::spawn(move || reader.run());
    Ok(follower)
}

/// Takes what the map's reader tells, and knows whether that is all.
pub(crate) struct MapFollower {
    events: Receiver<MapEvent>,
    ends: TopicEnds,
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
        self.ends.ask()
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
    reader: WholeTopic,
    topic: String,
    sender: SyncSender<MapEvent>,
    stop: CancellationToken,
    log: LogLimit,
}

impl MapReader {
    fn run(mut self) {
        while !self.stop.is_cancelled() {
            let event = self.step();
            if event.is_some_and(|event| self.sender.send(event).is_err()) {
                return;
            }
        }
    }

    /// What there is to tell of the next record.
    fn step(&mut self) -> Option<MapEvent> {
        match self.reader.poll() {
            Polled::Nothing => None,
            Polled::Record(record) => read(&record, &mut self.log),
            Polled::CaughtUp => {
                info!(topic = self.topic, "the UNS map is read");
                Some(MapEvent::CaughtUp)
            }
            Polled::Missing(error) => Some(MapEvent::Unavailable(format!(
                "the UNS map's topic {} cannot be read: {error}",
                self.topic
            ))),
            Polled::Failed(error) => {
                if let Some(held_back) = self.log.allow() {
                    warn!(%error, held_back, "the UNS map cannot be read at the moment; what is known of it stays");
                }
                None
            }
        }
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
