//! Reads parts of the topic that memory no longer has, once for all who ask.
//!
//! One thread reads. Whoever asks while it does so waits, and all who wait are served by the next pass: each
//! partition is read once from the lowest offset that is asked for. An answer is a page of bounded size, so a slow
//! client fetches at its own pace and holds nobody back.

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

use super::frame::Frame;
use crate::event::Columns;
use crate::kafka;
use crate::selection::Selection;

/// Bytes after which a page ends.
const PAGE_BYTES: usize = 256 * 1024;

/// Most requests served by one pass: bounds the pages in memory.
const MAX_REQUESTS: usize = 1000;

/// How long Kafka may be silent before those who wait are told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a record before looking whether anybody still waits.
const POLL: Duration = Duration::from_millis(100);

/// Part of a partition, for one client.
#[derive(Debug, Clone)]
pub(super) struct Range {
    /// The partition.
    pub(super) partition: u32,
    /// First offset.
    pub(super) from: u64,
    /// The offset after the last.
    pub(super) to: u64,
    /// What of it is asked for.
    pub(super) selection: Arc<Selection>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The events asked for, in order.
    pub(super) frames: Vec<Arc<Frame>>,
    /// Where the next page begins.
    pub(super) next: u64,
    /// Kafka no longer has all of the range: the page begins at the first offset that it still has.
    pub(super) lost: Option<u64>,
}

/// Kafka did not answer; the client is to come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("Kafka does not answer; come back in some seconds")]
pub(super) struct Unanswered;

/// Hands requests to the thread that reads.
#[derive(Clone)]
pub(super) struct RangeReader {
    requests: mpsc::Sender<Request>,
}

struct Request {
    progress: Progress,
    reply: oneshot::Sender<Page>,
}

impl RangeReader {
    /// Starts the thread; it ends with the last of those who could ask.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn start(kafka: &KafkaSettings, topic: &str) -> anyhow::Result<Self> {
        let settings = [
            // Where retention passes by while it is read, nothing is passed over: the next pass finds the new beginning.
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", "8192"),
        ];
        let worker = Worker {
            consumer: kafka::consumer(kafka, "range_reads", &settings)?,
            topic: topic.to_owned(),
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
    pub(super) async fn read(&self, range: Range) -> Result<Page, Unanswered> {
        let (reply, page) = oneshot::channel();
        let progress = Progress::new(range);
        let request = Request { progress, reply };
        self.requests.send(request).map_err(|_| Unanswered)?;
        page.await.map_err(|_| Unanswered)
    }
}

/// How far a request has come. Pure.
struct Progress {
    range: Range,
    page: Page,
    bytes: usize,
}

impl Progress {
    fn new(range: Range) -> Self {
        let page = Page {
            next: range.from,
            ..Page::default()
        };
        Self {
            range,
            page,
            bytes: 0,
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
        self.page.next >= self.range.to || self.bytes >= PAGE_BYTES
    }

    /// Takes the record at an offset in, if it is this request's.
    fn take(&mut self, offset: u64, frame: Option<&Arc<Frame>>) {
        if offset < self.page.next || self.is_done() {
            return;
        }
        if offset >= self.range.to {
            self.page.next = self.range.to;
            return;
        }
        self.page.next = offset + 1;
        let wanted = frame.filter(|frame| {
            self.range.selection.has_asset(&frame.asset)
                && self.range.selection.has_id(frame.id.as_deref())
        });
        if let Some(frame) = wanted {
            self.bytes += frame.size();
            self.page.frames.push(Arc::clone(frame));
        }
    }
}

struct Worker {
    consumer: kafka::Consumer,
    topic: String,
}

impl Worker {
    fn run(self, receiver: &mpsc::Receiver<Request>) {
        while let Ok(first) = receiver.recv() {
            let mut by_partition: BTreeMap<u32, Vec<Request>> = BTreeMap::new();
            let all = std::iter::once(first).chain(receiver.try_iter());
            for request in all.take(MAX_REQUESTS) {
                let partition = request.progress.range.partition;
                by_partition.entry(partition).or_default().push(request);
            }
            for (partition, requests) in by_partition {
                if let Err(error) = self.pass(partition, requests) {
                    warn!(partition, %error, "clients cannot catch up at the moment; they will come back");
                }
            }
        }
    }

    /// Reads a partition once for all. Those who are not answered notice that they are dropped.
    fn pass(&self, partition: u32, mut requests: Vec<Request>) -> Result<(), KafkaError> {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let (low, _) = self
            .consumer
            .fetch_watermarks(&self.topic, number, PATIENCE)?;
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
        start.add_partition_offset(&self.topic, number, offset)?;
        self.consumer.assign(&start)?;
        let read = self.read(&mut requests);
        self.consumer.unassign()?;
        read
    }

    fn read(&self, requests: &mut Vec<Request>) -> Result<(), KafkaError> {
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

fn take(record: &BorrowedMessage<'_>, requests: &mut [Request]) {
    let offset = u64::try_from(record.offset()).unwrap_or(0);
    let frame = frame(record, requests);
    for request in requests {
        request.progress.take(offset, frame.as_ref());
    }
}

/// The record as an event, if anybody asks for its asset.
fn frame(record: &BorrowedMessage<'_>, requests: &[Request]) -> Option<Arc<Frame>> {
    let asset = std::str::from_utf8(record.key()?).ok()?;
    let value = record.payload()?;
    let wanted = |request: &Request| request.progress.range.selection.has_asset(asset);
    requests.iter().any(wanted).then(|| {
        let id = Columns::parse(value).and_then(|columns| columns.id);
        let partition = u32::try_from(record.partition()).unwrap_or(0);
        let offset = u64::try_from(record.offset()).unwrap_or(0);
        let id = id.map(String::into_boxed_str);
        Arc::new(Frame::new(
            (partition, offset),
            asset.into(),
            id,
            value,
            None,
        ))
    })
}

/// Answers those who are done, forgets those who are gone, and returns the others.
fn unanswered(requests: Vec<Request>) -> Vec<Request> {
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

    fn progress(from: u64, to: u64) -> Progress {
        Progress::new(Range {
            partition: 0,
            from,
            to,
            selection: Arc::new(Selection::from_query(Some("asset_uuid=A&id=x")).unwrap()),
        })
    }

    fn event(offset: u64, asset: &str, id: &str) -> Arc<Frame> {
        let id = Some(id.into());
        Arc::new(Frame::new((0, offset), asset.into(), id, b"{}", None))
    }

    fn offsets(progress: &Progress) -> Vec<u64> {
        progress
            .page
            .frames
            .iter()
            .map(|frame| frame.offset)
            .collect()
    }

    #[test]
    fn a_page_has_what_was_asked_for_and_no_more() {
        let mut progress = progress(2, 6);
        for (offset, asset, id) in [
            (0, "A", "x"),
            (2, "A", "x"),
            (3, "B", "x"),
            (4, "A", "y"),
            (7, "A", "x"),
        ] {
            progress.take(offset, Some(&event(offset, asset, id)));
        }
        assert_eq!(offsets(&progress), [2]);
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
            progress.take(offset, Some(&event(offset, "A", "x")));
            offset += 1;
        }
        assert_eq!(progress.page.next, offset);
        assert!(progress.bytes < PAGE_BYTES + 1024);
    }
}
