//! Reading partitions: Kafka's Fetch request spoken directly.
//!
//! librdkafka, which is our member in the consumer group, allocates for each record and passes it between
//! threads; that alone costs more than all the rest of a forwarder. Here a broker's answer is read in place.
//! One task for each broker asks for all partitions that it leads; answers wait, few at a time, to be taken.

mod batch;
mod broker;
mod chunk;
mod supervisor;
mod table;
mod transactions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ofa_crds::kafka::KafkaSettings;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::kafka::{BrokerError, Security};
pub(crate) use batch::EncodedHeaders;
use batch::{Batch, BatchError, RecordReader};
pub(crate) use chunk::{Chunk, Taken};
use table::{Cluster, Generation, Table};
use transactions::AbortedTransactions;

/// A batch that cannot be read is asked for again after this time: what was damaged on the way comes whole, and
/// what is damaged on the disk is not to be passed over.
const RETRY_BATCH: Duration = Duration::from_secs(1);

/// What is read, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct FetchSettings {
    pub(crate) kafka: KafkaSettings,
    pub(crate) topic: String,
    /// The name of this member, for the broker's logs.
    pub(crate) client_id: String,
    /// How much may be read ahead.
    pub(crate) read_ahead: ReadAhead,
}

/// How much may be read ahead from each broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadAhead {
    /// Answers, from the request until the last record is taken.
    pub(crate) answers: usize,
    /// Bytes of an answer; a single batch that is larger comes nevertheless.
    pub(crate) bytes: i32,
}

/// Reads partitions, while the runtime runs that it was started in.
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    answers: UnboundedReceiver<Answer>,
    /// The answer that was waited for.
    arrived: Option<Answer>,
    open: Option<Open>,
    _supervisor: AbortOnDropHandle<()>,
}

/// What all tasks of a fetcher know.
struct Shared {
    settings: FetchSettings,
    security: Security,
    table: Mutex<Table>,
    /// Counts changes of the table.
    changes: watch::Sender<u64>,
    /// The cluster is not as the table has it.
    outdated: Notify,
    answers: UnboundedSender<Answer>,
}

/// What a broker has sent of one partition.
enum Answer {
    Records(Records),
    Problem { partition: i32, problem: String },
}

struct Records {
    partition: i32,
    generation: Generation,
    /// Records below this offset were not asked for, only are in the same batch.
    from: i64,
    data: Bytes,
    aborted: AbortedTransactions,
    /// Given back when the last record has been taken.
    _room: Arc<OwnedSemaphorePermit>,
}

/// Records that are being taken.
struct Open {
    records: Records,
    batch: Option<(Batch, RecordReader)>,
}

impl Fetcher {
    /// Begins; nothing is read before [`Self::read`]. To be called within a runtime.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(crate) fn start(settings: FetchSettings) -> Result<Self, BrokerError> {
        let (sender, answers) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            security: Security::new(&settings.kafka)?,
            settings,
            table: Mutex::default(),
            changes: watch::Sender::new(0),
            outdated: Notify::new(),
            answers: sender,
        });
        let supervisor = Handle::current().spawn(supervisor::run(shared.clone()));
        Ok(Self {
            shared,
            answers,
            arrived: None,
            open: None,
            _supervisor: AbortOnDropHandle::new(supervisor),
        })
    }

    /// Reads these partitions, each from an offset or from the oldest record on. What was read of them before
    /// and not taken is forgotten.
    pub(crate) fn read(&self, starts: &[(i32, Option<i64>)]) {
        self.shared.change(|table| {
            for &(partition, start) in starts {
                table.read(partition, start, None);
            }
        });
    }

    /// Reads these partitions no more; nothing more of them will be taken.
    pub(crate) fn remove(&self, partitions: &[i32]) {
        self.shared.change(|table| {
            for &partition in partitions {
                table.remove(partition);
            }
        });
    }

    /// Offset behind the last record of a partition that may be read, as far as its leader has told.
    pub(crate) fn known_end(&self, partition: i32) -> Option<i64> {
        self.shared.table.lock().end(partition)
    }

    /// Waits until there is something to take. Dropping the future loses nothing.
    pub(crate) async fn ready(&mut self) {
        if self.open.is_none() && self.arrived.is_none() {
            self.arrived = self.answers.recv().await;
        }
    }

    /// Fills `chunk` with what is there.
    pub(crate) fn fill(&mut self, chunk: &mut Chunk) {
        chunk.clear();
        while !chunk.is_full() {
            let open = match self.open.take() {
                Some(open) => open,
                None => match self.next(chunk) {
                    Some(open) => open,
                    None => return,
                },
            };
            self.open = self.take_records(open, chunk);
        }
    }

    /// The next answer with records; `None` when there is none now, or a problem to be told first.
    fn next(&mut self, chunk: &mut Chunk) -> Option<Open> {
        let arrived = self.arrived.take();
        match arrived.or_else(|| self.answers.try_recv().ok())? {
            Answer::Records(records) => Some(Open {
                records,
                batch: None,
            }),
            Answer::Problem { partition, problem } => {
                chunk.push_error(partition, problem);
                None
            }
        }
    }

    /// Takes records until the chunk is full; returns what is left.
    fn take_records(&self, mut open: Open, chunk: &mut Chunk) -> Option<Open> {
        let (partition, generation) = (open.records.partition, open.records.generation);
        if !self.shared.table.lock().is_current(partition, generation) {
            return None;
        }
        match open.fill(chunk) {
            Ok(true) => Some(open),
            Ok(false) => None,
            Err((at, error)) => {
                chunk.push_error(partition, error.to_string());
                let due = Instant::now() + RETRY_BATCH;
                self.shared
                    .change(|table| table.read(partition, Some(at), Some(due)));
                None
            }
        }
    }
}

impl Open {
    /// Moves records into the chunk; false when all have been moved. An error comes with the offset to go on at.
    fn fill(&mut self, chunk: &mut Chunk) -> Result<bool, (i64, BatchError)> {
        while !chunk.is_full() {
            let (batch, mut reader) = match self.batch.take() {
                Some(under_way) => under_way,
                None => match self.next_batch()? {
                    Some(batch) => {
                        let reader = batch.reader();
                        (batch, reader)
                    }
                    None => return Ok(false),
                },
            };
            let kind = batch.timestamp_kind();
            let buffer = chunk.add_buffer(self.records.partition, kind, batch.records.clone());
            while !chunk.is_full() {
                match reader.next(&batch) {
                    None => break,
                    Some(Ok(parts)) if parts.offset < self.records.from => {}
                    Some(Ok(parts)) => {
                        self.records.from = parts.offset + 1;
                        chunk.push(buffer, parts);
                    }
                    Some(Err(error)) => return Err((self.records.from, error)),
                }
            }
            if !reader.is_done() {
                self.batch = Some((batch, reader));
            }
        }
        Ok(true)
    }

    /// The next batch whose records count.
    fn next_batch(&mut self) -> Result<Option<Batch>, (i64, BatchError)> {
        let Records {
            data,
            aborted,
            from,
            ..
        } = &mut self.records;
        while !data.is_empty() {
            match Batch::take(data) {
                Ok(batch) if aborted.admits(&batch) => return Ok(Some(batch)),
                Ok(batch) => *from = (*from).max(batch.last_offset + 1),
                // The last one may be cut off where the answer was full.
                Err(BatchError::Short(_)) => return Ok(None),
                Err(error) => return Err((*from, error)),
            }
        }
        Ok(None)
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Table)) {
        let lacks_leader = {
            let mut table = self.table.lock();
            change(&mut table);
            table.lacks_leader()
        };
        if lacks_leader {
            self.outdated.notify_one();
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn set_cluster(&self, cluster: Cluster) {
        self.table.lock().set_cluster(cluster);
        self.changes.send_modify(|count| *count += 1);
    }

    fn tell(&self, answer: Answer) {
        // Nobody listens only while the fetcher is being dropped.
        let _ = self.answers.send(answer);
    }
}

/// Reads all records and their headers of whatever a broker may send: one batch, of which length, format and checksum are
/// put right, since hardly any other would be read any further.
#[cfg(feature = "internals")]
pub(crate) fn read_anything(data: &[u8]) {
    use crate::kafka::layout;
    let mut data = data.to_vec();
    if data.len() > layout::CHECKED_FROM {
        let length = u32::try_from(data.len() - layout::COUNTED_FROM).unwrap_or(u32::MAX);
        data[layout::LENGTH..layout::COUNTED_FROM].copy_from_slice(&length.to_be_bytes());
        data[layout::MAGIC] = layout::FORMAT;
        let checksum = crc32c::crc32c(&data[layout::CHECKED_FROM..]);
        data[layout::CHECKSUM..layout::CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    }
    let mut data = Bytes::from(data);
    while let Ok(batch) = Batch::take(&mut data) {
        let mut reader = batch.reader();
        while let Some(Ok(parts)) = reader.next(&batch) {
            let (key, value) = (parts.key.of(&batch.records), parts.value.of(&batch.records));
            let headers = batch::headers(&batch.records, parts.headers);
            std::hint::black_box((key, value, headers.count()));
        }
    }
}

#[cfg(test)]
mod tests;
