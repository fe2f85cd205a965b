//! Reads parts of topics that memory no longer has, once for all who ask.
//!
//! One thread reads. Whoever asks while it does so waits, and all who wait are served by the next pass: each
//! partition is read once from the lowest offset that is asked for. An answer is a page of bounded size, and
//! found within a bounded part of the topic, so a client that is slow, or asks for much, holds nobody back.

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

/// Bytes after which a page ends.
const PAGE_BYTES: usize = 256 * 1024;

/// Records after which a page ends, whatever it has: some tenths of a second. Who asks for a whole day takes turns
/// with who asks for a second.
const PAGE_RECORDS: usize = 100_000;

/// Most requests served by one pass: bounds the pages in memory.
const MAX_REQUESTS: usize = 1000;

/// How long Kafka may be silent before those who wait are told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a record before looking whether anybody still waits.
const POLL: Duration = Duration::from_millis(100);

/// What one client asks for, and what it is given.
pub(crate) trait Wanted: Send + Sync + 'static {
    /// An event.
    type Item: Send + Sync + 'static;

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

struct Request<W: Wanted> {
    progress: Progress<W>,
    reply: oneshot::Sender<Page<W::Item>>,
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
        let progress = Progress::new(range);
        let request = Request { progress, reply };
        self.requests.send(request).map_err(|_| Unanswered)?;
        page.await.map_err(|_| Unanswered)
    }
}

/// How far a request has come. Pure.
struct Progress<W: Wanted> {
    range: Range<W>,
    page: Page<W::Item>,
    bytes: usize,
    records: usize,
}

impl<W: Wanted> Progress<W> {
    fn new(range: Range<W>) -> Self {
        let page = Page {
            items: Vec::new(),
            next: range.from,
            lost: None,
        };
        Self {
            range,
            page,
            bytes: 0,
            records: 0,
        }
    }

    /// Offsets below `low` are no longer there.
    fn skip_to(&mut self, low: u64) {
        if self.page.next < low {
            let first = low.min(self.range.to);
            self.page.lost = Some(first);
            self.page.next = first;
        }
    }

    fn is_done(&self) -> bool {
        self.page.next >= self.range.to || self.bytes >= PAGE_BYTES || self.records >= PAGE_RECORDS
    }

    /// Takes the record at an offset in, if it is this request's.
    fn take(&mut self, offset: u64, item: Option<&Arc<W::Item>>) {
        if offset < self.page.next || self.is_done() {
            return;
        }
        if offset >= self.range.to {
            self.page.next = self.range.to;
            return;
        }
        self.page.next = offset + 1;
        self.records += 1;
        if let Some(item) = item.filter(|item| self.range.wanted.wants(item)) {
            self.bytes += W::size(item);
            self.page.items.push(Arc::clone(item));
        }
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
                let range = &request.progress.range;
                let place = (Arc::clone(&range.topic), range.partition);
                by_partition.entry(place).or_default().push(request);
            }
            for ((topic, partition), requests) in by_partition {
                if let Err(error) = self.pass(&topic, partition, requests) {
                    warn!(%topic, partition, %error, "clients cannot catch up at the moment; they will come back");
                }
            }
        }
    }

    /// Reads a partition once for all. Those who are not answered notice that they are dropped.
    fn pass<W: Wanted>(
        &self,
        topic: &str,
        partition: u32,
        mut requests: Vec<Request<W>>,
    ) -> Result<(), KafkaError> {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let (low, _) = self.consumer.fetch_watermarks(topic, number, PATIENCE)?;
        for request in &mut requests {
            request.progress.skip_to(u64::try_from(low).unwrap_or(0));
        }
        let mut requests = unanswered(requests);
        let Some(first) = requests
            .iter()
            .map(|request| request.progress.page.next)
            .min()
        else {
            return Ok(());
        };
        let mut start = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(first).unwrap_or(i64::MAX));
        start.add_partition_offset(topic, number, offset)?;
        self.consumer.assign(&start)?;
        let read = self.read(&mut requests);
        self.consumer.unassign()?;
        read
    }

    fn read<W: Wanted>(&self, requests: &mut Vec<Request<W>>) -> Result<(), KafkaError> {
        let mut heard = Instant::now();
        while !requests.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(record)) => {
                    heard = Instant::now();
                    take(&record, requests);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // Behind the last record there are only marks of transactions.
                    for request in requests.iter_mut() {
                        request.progress.take(u64::MAX, None);
                    }
                }
                Some(Err(error)) if is_final(&error) || heard.elapsed() >= PATIENCE => {
                    return Err(error);
                }
                Some(Err(_)) => {}
                None if heard.elapsed() >= PATIENCE => {
                    let code = rdkafka::types::RDKafkaErrorCode::OperationTimedOut;
                    return Err(KafkaError::MessageConsumption(code));
                }
                None => {}
            }
            *requests = unanswered(std::mem::take(requests));
        }
        Ok(())
    }
}

/// Errors that no waiting helps against.
fn is_final(error: &KafkaError) -> bool {
    let out_of_range = rdkafka::types::RDKafkaErrorCode::AutoOffsetReset;
    error.rdkafka_error_code() == Some(out_of_range)
}

fn take<W: Wanted>(record: &BorrowedMessage<'_>, requests: &mut [Request<W>]) {
    let offset = u64::try_from(record.offset()).unwrap_or(0);
    let item = item(record, requests);
    for request in requests {
        request.progress.take(offset, item.as_ref());
    }
}

/// The record as an event, if anybody asks for its asset.
fn item<W: Wanted>(record: &BorrowedMessage<'_>, requests: &[Request<W>]) -> Option<Arc<W::Item>> {
    let asset = std::str::from_utf8(record.key()?).ok()?;
    let wanted = |request: &Request<W>| request.progress.range.wanted.wants_asset(asset);
    let wanted = requests.iter().any(wanted);
    wanted.then(|| W::read(asset, record).map(Arc::new))?
}

/// Answers those who are done, forgets those who are gone, and returns the others.
fn unanswered<W: Wanted>(requests: Vec<Request<W>>) -> Vec<Request<W>> {
    let mut waiting = Vec::with_capacity(requests.len());
    for request in requests {
        if request.progress.is_done() {
            // One who is gone needs no answer.
            let _ = request.reply.send(request.progress.page);
        } else if !request.reply.is_closed() {
            waiting.push(request);
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of one asset are wanted, and of these the even ones.
    struct Even;

    impl Wanted for Even {
        type Item = u64;

        fn wants_asset(&self, asset: &str) -> bool {
            asset == "A"
        }

        fn read(_: &str, record: &BorrowedMessage<'_>) -> Option<u64> {
            u64::try_from(record.offset()).ok()
        }

        fn wants(&self, item: &u64) -> bool {
            item.is_multiple_of(2)
        }

        fn size(_: &u64) -> usize {
            100
        }
    }

    fn progress(from: u64, to: u64) -> Progress<Even> {
        Progress::new(Range {
            topic: "t".into(),
            partition: 0,
            from,
            to,
            wanted: Arc::new(Even),
        })
    }

    fn offsets(progress: &Progress<Even>) -> Vec<u64> {
        progress.page.items.iter().map(|item| **item).collect()
    }

    #[test]
    fn a_page_has_what_was_asked_for_and_no_more() {
        let mut progress = progress(2, 6);
        for offset in [0, 2, 3, 4, 8] {
            progress.take(offset, Some(&Arc::new(offset)));
        }
        assert_eq!(offsets(&progress), [2, 4]);
        assert_eq!(progress.page.next, 6);
        assert!(progress.is_done());
    }

    #[test]
    fn what_retention_took_is_told() {
        let mut progress = progress(2, 6);
        progress.skip_to(4);
        assert_eq!((progress.page.lost, progress.page.next), (Some(4), 4));
        progress.skip_to(9);
        assert_eq!((progress.page.lost, progress.page.next), (Some(6), 6));
        assert!(progress.is_done());
    }

    #[test]
    fn a_page_is_bounded_and_the_next_one_goes_on() {
        let mut progress = progress(0, 1_000_000);
        let mut offset = 0;
        while !progress.is_done() {
            progress.take(offset, Some(&Arc::new(offset)));
            offset += 1;
        }
        assert_eq!(progress.page.next, offset);
        assert!(progress.bytes < PAGE_BYTES + 1024);
    }

    #[test]
    fn a_page_without_a_find_ends_too() {
        let mut progress = progress(0, u64::MAX);
        for offset in 0..=PAGE_RECORDS as u64 {
            progress.take(offset, None);
        }
        assert!(progress.is_done());
        assert_eq!(progress.page.next, PAGE_RECORDS as u64);
    }
}
