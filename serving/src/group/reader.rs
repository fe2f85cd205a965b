//! Reads the group's topic: one consumer for all clients, all partitions, nothing committed.
//!
//! Reading begins where the state store's stream ends and is served once it has reached what stood on the topic at
//! that time. Read committed, so that nobody sees an event that its transaction takes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::kafka::KafkaSettings;
use ofa_crds::names::asset_of_key;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::frame::Frame;
use super::hub::{Hub, Limits};
use super::position::Position;
use crate::event::Columns;
use crate::kafka;
use crate::metrics::Metrics;
use crate::origin;
use crate::state::{Change, StateError, StateStore};
use crate::unread::Unread;

/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// Most records, and about as many bytes, taken in at a time: less than may wait for a client, so that one
/// that keeps up is not taken for a slow one in a burst.
const BATCH: usize = 2000;
const BATCH_BYTES: usize = 128 * 1024;

/// How long before Kafka is asked again for a topic that is not there.
const RETRY: Duration = Duration::from_secs(1);

/// How often the topic is asked whether it has more partitions than before, and how often at most because a client knows of more.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(30);
const PARTITIONS_REST: Duration = Duration::from_secs(1);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why reading ended: the process is to be started again, and its clients come back to it.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// Kafka's client failed for good.
    #[error("the topic {topic} cannot be read: {source}; start this program again")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why.
        source: KafkaError,
    },
    /// The topic is not what it was.
    #[error(
        "the topic {0} was made anew or grew, or its retention took events before they were read; start this program again, and it begins with what the topic has now"
    )]
    Changed(String),
    /// The state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Whether clients can be served.
#[derive(Clone)]
pub(super) enum Status {
    /// Not yet, and why.
    NotReady(String),
    /// From here.
    Serving(Arc<Hub>),
}

/// What is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// For clients that stream, and for the state.
    EventsAndState,
    /// For the state alone, from when somebody asks for it.
    State,
}

/// The reader of a topic; [`Reader::run`] blocks.
pub(super) struct Reader {
    consumer: kafka::Consumer,
    topic: String,
    reads: Reads,
    store: Arc<StateStore>,
    limits: Limits,
    status: watch::Sender<Status>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What reading needs to know of the topic.
struct Begun {
    hub: Arc<Hub>,
    position: Position,
    /// What stood on the topic then and is not read yet.
    unread: Unread,
    partitions: u32,
}

impl Reader {
    /// Prepares to read; nothing is asked of Kafka yet.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn new(
        kafka: &KafkaSettings,
        (topic, reads): (&str, Reads),
        store: Arc<StateStore>,
        limits: Limits,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> anyhow::Result<(Self, watch::Receiver<Status>)> {
        let settings = [
            // An offset that is gone is an error, and never a silent jump over events.
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", "16384"),
        ];
        let unread = format!("the topic {topic} is not read yet");
        let (status, receiver) = watch::channel(Status::NotReady(unread));
        let reader = Self {
            consumer: kafka::consumer(kafka, "group", &settings)?,
            topic: topic.to_owned(),
            reads,
            store,
            limits,
            status,
            metrics,
            stop,
        };
        Ok((reader, receiver))
    }

    /// Reads until told to stop.
    ///
    /// # Errors
    /// When the process has to be started again.
    pub(super) fn run(self) -> Result<(), ReadError> {
        let Some(mut begun) = self.begin()? else {
            return Ok(());
        };
        let mut checked_at = Instant::now();
        while !self.stop.is_cancelled() {
            let batch = self.batch(&mut begun)?;
            if !batch.frames.is_empty() || !batch.next.is_empty() {
                let delivered = begun.hub.publish(&batch.frames, &batch.next, Instant::now);
                self.metrics.delivered(delivered.events, delivered.slow);
                self.store.apply(batch.changes, batch.next)?;
            }
            self.announce(&begun);
            let since = checked_at.elapsed();
            if since >= PARTITIONS_INTERVAL
                || since >= PARTITIONS_REST && begun.hub.lacks_partition()
            {
                checked_at = Instant::now();
                // A broker that is away says nothing about the topic.
                if let Ok(count) = self.partitions()
                    && count != begun.partitions
                {
                    return Err(ReadError::Changed(self.topic.clone()));
                }
            }
        }
        Ok(self.store.sync()?)
    }

    /// Waits for the topic and begins where the state ends; `None` when told to stop meanwhile.
    fn begin(&self) -> Result<Option<Begun>, ReadError> {
        while !self.stop.is_cancelled() {
            match self.bounds() {
                Ok(bounds) => return self.begin_at(&bounds).map(Some),
                Err(error) => {
                    let why = format!("the topic {} cannot be read: {error}", self.topic);
                    self.status.send_replace(Status::NotReady(why));
                    std::thread::sleep(RETRY);
                }
            }
        }
        Ok(None)
    }

    fn begin_at(&self, bounds: &[(u64, u64)]) -> Result<Begun, ReadError> {
        let starts = self.starts(bounds)?;
        let mut assignment = TopicPartitionList::new();
        for (partition, &start) in (0..).zip(&starts) {
            let offset = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
            assignment
                .add_partition_offset(&self.topic, partition, offset)
                .map_err(|source| self.failed(source))?;
        }
        self.consumer
            .assign(&assignment)
            .map_err(|source| self.failed(source))?;
        info!(topic = self.topic, ?starts, "reading begins");
        Ok(Begun {
            hub: Arc::new(Hub::new(&self.topic, starts.clone(), self.limits)),
            unread: Unread::new(
                starts
                    .iter()
                    .copied()
                    .zip(bounds.iter().map(|(_, high)| *high)),
            ),
            partitions: u32::try_from(starts.len()).unwrap_or(u32::MAX),
            position: Position::new(self.topic.as_str(), starts),
        })
    }

    /// Where each partition begins: after what the state has, if the topic still is the one it was made from.
    fn starts(&self, bounds: &[(u64, u64)]) -> Result<Vec<u64>, ReadError> {
        let known = self.store.positions()?;
        if let Some(starts) = starts(bounds, &known) {
            return Ok(starts);
        }
        warn!(
            topic = self.topic,
            "the topic was made anew; the state is rebuilt"
        );
        self.store.clear()?;
        Ok(bounds.iter().map(|(low, _)| *low).collect())
    }

    /// The first offset and the one after the last of each partition.
    fn bounds(&self) -> Result<Vec<(u64, u64)>, KafkaError> {
        let count = self.partitions()?;
        let bounds = (0..count).map(|partition| {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let (low, high) =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)?;
            let offset = |offset: i64| u64::try_from(offset).unwrap_or(0);
            Ok((offset(low), offset(high)))
        });
        bounds.collect()
    }

    fn partitions(&self) -> Result<u32, KafkaError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)?;
        let topic = metadata.topics().first();
        match topic.map_or(0, |topic| topic.partitions().len()) {
            0 => Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::UnknownTopicOrPartition,
            )),
            count => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        }
    }

    /// What has arrived: by itself while the topic is quiet, many at a time in a backlog.
    fn batch(&self, begun: &mut Begun) -> Result<Batch, ReadError> {
        let mut batch = Batch::default();
        let mut wait = POLL;
        while batch.changes.len() < BATCH && batch.bytes < BATCH_BYTES {
            match self.consumer.poll(wait) {
                Some(Ok(record)) => {
                    let (partition, offset) = place(&record);
                    begun.unread.read(partition, offset);
                    batch.take(&record, self.reads, &mut begun.position, &self.metrics);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => begun.unread.ended(partition),
                Some(Err(error)) => self.judge(error)?,
                None => break,
            }
            wait = Duration::ZERO;
        }
        Ok(batch)
    }

    fn judge(&self, error: KafkaError) -> Result<(), ReadError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset) => Err(ReadError::Changed(self.topic.clone())),
            Some(RDKafkaErrorCode::Fatal) => Err(self.failed(error)),
            _ => {
                warn!(%error, topic = self.topic, "the topic cannot be read at the moment; trying on");
                Ok(())
            }
        }
    }

    /// Serves clients from the moment when everything that stood on the topic at the start is read.
    fn announce(&self, begun: &Begun) {
        if !begun.unread.is_empty() {
            return;
        }
        let begin = |status: &mut Status| {
            let waits = matches!(status, Status::NotReady(_));
            if waits {
                *status = Status::Serving(Arc::clone(&begun.hub));
            }
            waits
        };
        if self.status.send_if_modified(begin) {
            info!(
                topic = self.topic,
                "the stream is read up to now; clients are served"
            );
        }
    }

    fn failed(&self, source: KafkaError) -> ReadError {
        let topic = self.topic.clone();
        ReadError::Kafka { topic, source }
    }
}

/// After what is known, where the topic has it; `None` if it is not the topic that was read before.
fn starts(bounds: &[(u64, u64)], known: &BTreeMap<u32, u64>) -> Option<Vec<u64>> {
    let last = known.keys().next_back();
    if last.is_some_and(|last| *last as usize >= bounds.len()) {
        return None;
    }
    let start = |(partition, (low, high)): (u32, &(u64, u64))| match known.get(&partition) {
        Some(next) if next > high => None,
        Some(next) => Some(*next.max(low)),
        None => Some(*low),
    };
    (0..).zip(bounds).map(start).collect()
}

/// Partition and offset.
fn place(record: &BorrowedMessage<'_>) -> (u32, u64) {
    let partition = u32::try_from(record.partition()).unwrap_or(0);
    (partition, u64::try_from(record.offset()).unwrap_or(0))
}

#[derive(Default)]
struct Batch {
    frames: Vec<Arc<Frame>>,
    changes: Vec<Change>,
    next: BTreeMap<u32, u64>,
    bytes: usize,
}

impl Batch {
    fn take(
        &mut self,
        record: &BorrowedMessage<'_>,
        reads: Reads,
        position: &mut Position,
        metrics: &Metrics,
    ) {
        let (partition, offset) = place(record);
        position.saw(partition, offset);
        self.next.insert(partition, offset + 1);
        // A tombstone or a record of no asset is nobody's event.
        let (Ok(asset), Some(value)) = (asset_of_key(record.key()), record.payload()) else {
            metrics.passed_over();
            return;
        };
        let columns = Columns::parse(value).unwrap_or_default();
        let asset: Arc<str> = asset.into();
        if reads == Reads::EventsAndState {
            let id = columns.id.as_deref().map(Into::into);
            let at = (partition, offset);
            let frame = Frame::new(at, Arc::clone(&asset), id, value, Some(position));
            let frame = frame.moved_from(origin::moved_from(record));
            self.bytes += frame.size();
            self.frames.push(Arc::new(frame));
        }
        self.changes.push(Change { asset, columns });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_goes_on_after_the_state_unless_the_topic_is_another() {
        let known = |entries: &[(u32, u64)]| entries.iter().copied().collect();
        let bounds = [(10, 20), (0, 5)];
        assert_eq!(starts(&bounds, &known(&[])), Some(vec![10, 0]));
        assert_eq!(starts(&bounds, &known(&[(0, 15)])), Some(vec![15, 0]));
        assert_eq!(
            starts(&bounds, &known(&[(0, 3), (1, 5)])),
            Some(vec![10, 5])
        );
        assert_eq!(starts(&bounds, &known(&[(1, 6)])), None);
        assert_eq!(starts(&bounds, &known(&[(2, 0)])), None);
    }
}
