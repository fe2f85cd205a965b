//! Keeps the newest events in memory: one consumer of all partitions, nothing committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::MixedPartitions;
use ofa_crds::kafka::KafkaSettings;
use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::heads;
use super::lanes::Lanes;
use super::mixed::Mixed;
use super::record::Record;
use super::ring::{Found, Ring};
use crate::kafka;
use crate::metrics::Metrics;
use crate::unread::Unread;

/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// Records taken in before those who wait for them are woken.
const BATCH: usize = 2000;

/// How long before Kafka is asked again for a topic that is not there.
const RETRY: Duration = Duration::from_secs(1);

/// How often the topic is asked whether it has more partitions than before.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(10);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Records of each partition that are read back at the start, so that a service that was just started has in memory
/// what clients ask for that lost their connection a moment ago.
const BACKLOG: i64 = 20_000;

/// Kafka's client failed for good.
#[derive(Debug, Error)]
#[error("the topic {topic} cannot be read: {source}; start this program again")]
pub(super) struct TailError {
    topic: String,
    source: KafkaError,
}

/// Whether there is something in memory to answer from.
#[derive(Clone)]
pub(super) enum Status {
    /// Not yet, and why.
    NotReady(String),
    /// From here.
    Ready(Arc<Tail>),
}

/// The newest events of all partitions.
pub(super) struct Tail {
    rings: Vec<Mutex<Ring>>,
    /// Counts batches: whoever waits for an offset looks again.
    batches: watch::Sender<u64>,
}

impl Tail {
    fn new(starts: &[u64], bytes: usize) -> Self {
        // Shared evenly, so that a busy partition does not push out the others.
        let bound = bytes / starts.len().max(1);
        let ring = |start: &u64| Mutex::new(Ring::new(*start, bound));
        Self {
            rings: starts.iter().map(ring).collect(),
            batches: watch::Sender::new(0),
        }
    }

    /// What memory covers of a partition: from the first offset up to and without the second.
    #[must_use]
    pub(super) fn covered(&self, partition: u32) -> Option<(u64, u64)> {
        let ring = self.rings.get(partition as usize)?.lock();
        Some((ring.start(), ring.next()))
    }

    /// The next page of what memory has from `from` on; `None` where it does not cover `from`.
    #[must_use]
    pub(super) fn page(
        &self,
        partition: u32,
        lanes: &Lanes,
        (from, to): (u64, u64),
        limit: usize,
    ) -> Option<Found> {
        let ring = self.rings.get(partition as usize)?.lock();
        let to = to.min(ring.next());
        (ring.start() <= from && from < to).then(|| ring.page(lanes, from, to, limit))
    }

    /// Waits until memory has a partition up to `head`, but not for longer than `patience`.
    pub(super) async fn reach(&self, partition: u32, head: u64, patience: Duration) {
        let mut batches = self.batches.subscribe();
        let reached =
            batches.wait_for(|_| self.covered(partition).is_none_or(|(_, next)| next >= head));
        // Whoever waited in vain reads from Kafka.
        let _ = tokio::time::timeout(patience, reached).await;
    }

    fn bytes(&self) -> usize {
        self.rings.iter().map(|ring| ring.lock().bytes()).sum()
    }
}

/// Reads the topic's end; [`Reader::run`] blocks.
pub(super) struct Reader {
    pub(super) consumer: kafka::Consumer,
    pub(super) topic: String,
    pub(super) bytes: usize,
    pub(super) status: watch::Sender<Status>,
    pub(super) reports: watch::Sender<Option<MixedPartitions>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
}

/// Where a partition is to be read from, and the offset that comes next there.
type Span = (u64, u64);

/// Why reading begins anew.
enum Ended {
    Stopped,
    /// The topic grew, was made anew, or its retention took events before they were read.
    Changed,
}

impl Reader {
    /// A consumer for [`Reader`].
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn consumer(kafka: &KafkaSettings) -> anyhow::Result<kafka::Consumer> {
        let settings = [
            // An offset that is gone is an error, and never a silent jump over events.
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", "16384"),
        ];
        Ok(kafka::consumer(kafka, "replay", &settings)?)
    }

    /// Reads until told to stop.
    ///
    /// # Errors
    /// When the process has to be started again.
    pub(super) fn run(self) -> Result<(), TailError> {
        while let Some((tail, spans)) = self.begin() {
            match self.read(&tail, &spans)? {
                Ended::Stopped => break,
                Ended::Changed => {
                    let why = format!("the topic {} is read anew", self.topic);
                    warn!(topic = self.topic, "the topic has changed; it is read anew");
                    self.status.send_replace(Status::NotReady(why));
                }
            }
        }
        Ok(())
    }

    /// Waits for the topic; `None` when told to stop meanwhile.
    fn begin(&self) -> Option<(Arc<Tail>, Vec<Span>)> {
        while !self.stop.is_cancelled() {
            match self.spans() {
                Ok(spans) => {
                    info!(topic = self.topic, ?spans, "reading begins");
                    let starts: Vec<u64> = spans.iter().map(|(start, _)| *start).collect();
                    return Some((Arc::new(Tail::new(&starts, self.bytes)), spans));
                }
                Err(error) => {
                    let why = format!("the topic {} cannot be read: {error}", self.topic);
                    self.status.send_replace(Status::NotReady(why));
                    std::thread::sleep(RETRY);
                }
            }
        }
        None
    }

    fn spans(&self) -> Result<Vec<Span>, KafkaError> {
        let count = heads::partitions(&self.consumer, &self.topic)?;
        let offset = |offset: i64| u64::try_from(offset).unwrap_or(0);
        let span = |partition| {
            let (low, high) =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)?;
            Ok((offset((high - BACKLOG).max(low)), offset(high)))
        };
        (0..count).map(span).collect()
    }

    fn assign(&self, spans: &[Span]) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::new();
        for (partition, (start, _)) in (0..).zip(spans) {
            let offset = Offset::Offset(i64::try_from(*start).unwrap_or(i64::MAX));
            assignment.add_partition_offset(&self.topic, partition, offset)?;
        }
        self.consumer.assign(&assignment)
    }

    fn read(&self, tail: &Arc<Tail>, spans: &[Span]) -> Result<Ended, TailError> {
        self.assign(spans).map_err(|source| self.failed(source))?;
        let mut unread = Unread::new(spans.iter().copied());
        let mut mixed = Mixed::new(self.reports.clone(), Arc::clone(&self.metrics));
        let mut checked_at = Instant::now();
        while !self.stop.is_cancelled() {
            if let Some(ended) = self.batch(tail, &mut mixed, &mut unread)? {
                return Ok(ended);
            }
            self.announce(tail, &unread);
            if checked_at.elapsed() >= PARTITIONS_INTERVAL {
                checked_at = Instant::now();
                self.metrics.replay_memory(tail.bytes());
                // A broker that is away says nothing about the topic.
                if let Ok(count) = heads::partitions(&self.consumer, &self.topic)
                    && usize::try_from(count) != Ok(spans.len())
                {
                    return Ok(Ended::Changed);
                }
            }
        }
        Ok(Ended::Stopped)
    }

    /// Takes in what has arrived.
    fn batch(
        &self,
        tail: &Tail,
        mixed: &mut Mixed,
        unread: &mut Unread,
    ) -> Result<Option<Ended>, TailError> {
        let mut wait = POLL;
        for _ in 0..BATCH {
            match self.consumer.poll(wait) {
                Some(Ok(record)) => take(&record, tail, mixed, unread),
                Some(Err(KafkaError::PartitionEOF(partition))) => unread.ended(partition),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset) => return Ok(Some(Ended::Changed)),
                    Some(RDKafkaErrorCode::Fatal) => return Err(self.failed(error)),
                    _ => {
                        warn!(%error, topic = self.topic, "the topic cannot be read at the moment; trying on");
                    }
                },
                None => break,
            }
            wait = Duration::ZERO;
        }
        tail.batches.send_modify(|batches| *batches += 1);
        Ok(None)
    }

    /// Answers are given from the moment when what stood on the topic at the start is read.
    fn announce(&self, tail: &Arc<Tail>, unread: &Unread) {
        if !unread.is_empty() {
            return;
        }
        let begins = self.status.send_if_modified(|status| {
            let waits = matches!(status, Status::NotReady(_));
            if waits {
                *status = Status::Ready(Arc::clone(tail));
            }
            waits
        });
        if begins {
            info!(
                topic = self.topic,
                "the topic is read up to now; clients are served"
            );
        }
    }

    fn failed(&self, source: KafkaError) -> TailError {
        let topic = self.topic.clone();
        TailError { topic, source }
    }
}

fn take(record: &BorrowedMessage<'_>, tail: &Tail, mixed: &mut Mixed, unread: &mut Unread) {
    let partition = usize::try_from(record.partition()).unwrap_or(usize::MAX);
    let (Some(ring), Ok(offset)) = (tail.rings.get(partition), u64::try_from(record.offset()))
    else {
        return;
    };
    let event = Record::of(record);
    if let (Some(event), Ok(partition)) = (&event, u32::try_from(record.partition())) {
        mixed.note(event, partition);
    }
    ring.lock().push(offset, event);
    if let Ok(partition) = u32::try_from(partition) {
        unread.read(partition, offset);
    }
}
