//! Reads parts of topics that memory no longer has, once for all who ask.
//!
//! One thread reads. Whoever asks while it does so waits, and all who wait are served by the next [`pass`]: what they
//! ask for of a partition is read once. An answer is a page of bounded size, and
//! found within a bounded part of the topic, so a client that is slow, or asks for much, holds nobody back.

mod pass;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ofa_crds::kafka::KafkaSettings;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::warn;

use crate::kafka;
use pass::{Pass, Request, passes};

/// Most requests served by one round of passes: bounds the pages in memory.
const MAX_REQUESTS: usize = 1000;

/// How long Kafka may be silent before those who wait are told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a record before looking whether anybody still waits.
const POLL: Duration = Duration::from_millis(100);

/// Records after which that is looked at too.
const LOOK_EVERY: usize = 10_000;

/// What one client asks for, and what it is given.
pub(crate) trait Wanted: Send + Sync + 'static {
    /// An event.
    type Item: Send + Sync + 'static;

    /// All assets of which anything is wanted, where they can be told.
    fn assets(&self) -> Option<Vec<Arc<str>>>;

    /// Whether anything of this asset is wanted.
    fn wants_asset(&self, asset: &str) -> bool;

    /// Reads a record of an asset; `None` for what is nobody's event.
    fn read(asset: &str, record: &BorrowedMessage<'_>) -> Option<Self::Item>;

    /// Whether an event is wanted.
    fn wants(&self, item: &Self::Item) -> bool;

    /// About how many bytes an event has.
    fn size(item: &Self::Item) -> usize;
}

/// Part of a partition, for one client.
#[derive(Debug)]
pub(crate) struct Range<W> {
    /// The topic.
    pub(crate) topic: Arc<str>,
    /// The partition.
    pub(crate) partition: u32,
    /// First offset.
    pub(crate) from: u64,
    /// The offset after the last.
    pub(crate) to: u64,
    /// What of it is asked for.
    pub(crate) wanted: Arc<W>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Page<I> {
    /// The events asked for, in order.
    pub(crate) items: Vec<Arc<I>>,
    /// Where the next page begins.
    pub(crate) next: u64,
    /// Kafka no longer has all of the range: the page begins at the first offset that it still has.
    pub(crate) lost: Option<u64>,
}

/// Kafka did not answer; the client is to come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("Kafka does not answer; come back in some seconds")]
pub(crate) struct Unanswered;

/// Hands requests to the thread that reads.
pub(crate) struct RangeReader<W: Wanted> {
    requests: mpsc::Sender<Request<W>>,
}

impl<W: Wanted> Clone for RangeReader<W> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
        }
    }
}

impl<W: Wanted> RangeReader<W> {
    /// Starts the thread; it ends with the last of those who could ask.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(crate) fn start(kafka: &KafkaSettings) -> anyhow::Result<Self> {
        let settings = [
            // Where retention passes by while it is read, nothing is passed over: the next pass finds the new beginning.
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", "8192"),
            // All that is asked for is there: that only marks of transactions are left, is to be known at once.
            ("fetch.wait.max.ms", "10"),
        ];
        let worker = Worker {
            consumer: kafka::consumer(kafka, "range_reads", &settings)?,
        };
        let (requests, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("range-reads".to_owned())
            .spawn(move || worker.run(&receiver))?;
        Ok(Self { requests })
    }

    /// The next page of a range.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(crate) async fn read(&self, range: Range<W>) -> Result<Page<W::Item>, Unanswered> {
        let (reply, page) = oneshot::channel();
        let request = Request::new(range, reply);
        self.requests.send(request).map_err(|_| Unanswered)?;
        page.await.map_err(|_| Unanswered)
    }
}

struct Worker {
    consumer: kafka::Consumer,
}

impl Worker {
    fn run<W: Wanted>(self, receiver: &mpsc::Receiver<Request<W>>) {
        while let Ok(first) = receiver.recv() {
            let mut by_partition: BTreeMap<(Arc<str>, u32), Vec<Request<W>>> = BTreeMap::new();
            let all = std::iter::once(first).chain(receiver.try_iter());
            for request in all.take(MAX_REQUESTS) {
                by_partition
                    .entry(request.place())
                    .or_default()
                    .push(request);
            }
            for ((topic, partition), requests) in by_partition {
                if let Err(error) = self.serve(&topic, partition, requests) {
                    warn!(%topic, partition, %error, "clients cannot catch up at the moment; they will come back");
                }
            }
        }
    }

    /// Reads what is asked for of a partition. Those who are not answered notice that they are dropped.
    fn serve<W: Wanted>(
        &self,
        topic: &str,
        partition: u32,
        requests: Vec<Request<W>>,
    ) -> Result<(), KafkaError> {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let (low, high) = self.consumer.fetch_watermarks(topic, number, PATIENCE)?;
        let [low, high] = [low, high].map(|offset| u64::try_from(offset).unwrap_or(0));
        for mut pass in passes(requests, low) {
            pass.forget_who_is_gone();
            if pass.is_done() {
                continue;
            }
            let mut start = TopicPartitionList::new();
            let offset = Offset::Offset(i64::try_from(pass.from()).unwrap_or(i64::MAX));
            start.add_partition_offset(topic, number, offset)?;
            self.consumer.assign(&start)?;
            let read = self.read(pass, high);
            self.consumer.unassign()?;
            match read {
                Err(error) if is_final(&error) => {
                    warn!(%topic, partition, %error, "retention was faster; those who asked come back");
                }
                read => read?,
            }
        }
        Ok(())
    }

    fn read<W: Wanted>(&self, mut pass: Pass<W>, high: u64) -> Result<(), KafkaError> {
        let (mut heard, mut records) = (Instant::now(), 0);
        while !pass.is_done() {
            match self.consumer.poll(POLL) {
                Some(Ok(record)) => {
                    heard = Instant::now();
                    take(&record, &mut pass);
                    records += 1;
                    if records % LOOK_EVERY == 0 {
                        pass.forget_who_is_gone();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => pass.at_the_end(high),
                Some(Err(error)) if is_final(&error) || heard.elapsed() >= PATIENCE => {
                    return Err(error);
                }
                None if heard.elapsed() >= PATIENCE => {
                    let code = rdkafka::types::RDKafkaErrorCode::OperationTimedOut;
                    return Err(KafkaError::MessageConsumption(code));
                }
                Some(Err(_)) | None => pass.forget_who_is_gone(),
            }
        }
        Ok(())
    }
}

/// Errors that no waiting helps against.
fn is_final(error: &KafkaError) -> bool {
    let out_of_range = rdkafka::types::RDKafkaErrorCode::AutoOffsetReset;
    error.rdkafka_error_code() == Some(out_of_range)
}

fn take<W: Wanted>(record: &BorrowedMessage<'_>, pass: &mut Pass<W>) {
    let offset = u64::try_from(record.offset()).unwrap_or(0);
    let asset = record.key().and_then(|key| std::str::from_utf8(key).ok());
    pass.take(offset, asset, |asset| W::read(asset, record));
}
