//! Records by the thousand in one call: librdkafka's batch interface, which the safe crate does not offer.
#![allow(
    unsafe_code,
    reason = "rd_kafka_consume_batch_queue has no safe wrapper; one record a call costs twice the CPU"
)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::context::Context;
use super::headers::Headers;
use crate::route::{Record, Timestamp, TimestampKind};

/// Most records in a chunk: enough to make a chunk's fixed costs vanish, few enough to stay in the cache.
const CHUNK: usize = 2000;

/// A queue of its own for the records of all assigned partitions; what else librdkafka reports stays on
/// the consumer's main queue.
pub(crate) struct RecordQueue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    consumer: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for RecordQueue {}
// SAFETY: as above; librdkafka locks within each call.
unsafe impl Sync for RecordQueue {}

impl RecordQueue {
    /// A queue of `consumer`; `None` when librdkafka cannot make one.
    pub(crate) fn new(consumer: Arc<BaseConsumer<Context>>) -> Option<Self> {
        // SAFETY: the client lives as long as `consumer`, which this queue holds.
        let queue = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Some(Self {
            queue: NonNull::new(queue)?,
            consumer,
        })
    }

    /// Sends the records of a partition to this queue. To be called before each assignment of it, so that
    /// none takes the way over the main queue.
    pub(crate) fn adopt(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else {
            return;
        };
        // SAFETY: the client outlives the call; the partition's queue is released right after, which leaves
        // the forwarding in place.
        unsafe {
            let of_partition = rd::rd_kafka_queue_get_partition(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
            );
            if !of_partition.is_null() {
                rd::rd_kafka_queue_forward(of_partition, self.queue.as_ptr());
                rd::rd_kafka_queue_destroy(of_partition);
            }
        }
    }

    /// Fills `chunk` with what is there; waits for the first record for `wait` at most, never for a second.
    pub(crate) fn fill(&self, chunk: &mut Chunk, wait: Duration) {
        chunk.release();
        self.take(chunk);
        if chunk.len == 0 && !wait.is_zero() {
            let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: as in `take`; one record at most is returned, and owned by the chunk from here.
            let first = unsafe { rd::rd_kafka_consume_queue(self.queue.as_ptr(), wait) };
            if first.is_null() {
                return;
            }
            chunk.messages[0] = first;
            chunk.len = 1;
            self.take(chunk);
        }
    }

    fn take(&self, chunk: &mut Chunk) {
        let room = &mut chunk.messages[chunk.len..];
        // SAFETY: `room` has as many places as stated; librdkafka fills the first of them with records that
        // the chunk owns from here. With timeout 0 it takes only what is there.
        let got = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, room.as_mut_ptr(), room.len())
        };
        chunk.len += usize::try_from(got).unwrap_or(0);
    }

    /// End of a partition as the last fetch told it, without asking the broker; `None` when not known yet.
    pub(crate) fn known_end(&self, topic: &str, partition: i32) -> Option<i64> {
        let topic = CString::new(topic).ok()?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the out-pointers are valid for the call.
        let error = unsafe {
            let client = self.consumer.client().native_ptr();
            rd::rd_kafka_get_watermark_offsets(
                client,
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (error == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }
}

impl Drop for RecordQueue {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Records taken from librdkafka together; they are returned to it when the next ones are taken.
pub(crate) struct Chunk {
    messages: Vec<*mut rd::rd_kafka_message_t>,
    len: usize,
}

// SAFETY: a chunk owns its records, and librdkafka lets any thread release them.
unsafe impl Send for Chunk {}

/// One place of a chunk.
pub(crate) enum Taken<'a> {
    Record(Record<'a>),
    /// The partition reports a problem in place of a record.
    Error {
        partition: i32,
        error: String,
    },
}

impl Chunk {
    pub(crate) fn new() -> Self {
        Self {
            messages: vec![std::ptr::null_mut(); CHUNK],
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there was more to take than the chunk has places for, most likely.
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.messages.len()
    }

    /// A copy of the headers of the record at a place below [`Self::len`].
    pub(crate) fn headers(&self, at: usize) -> Option<Headers> {
        // SAFETY: places below `len` hold records that librdkafka filled in and that live until `release`.
        unsafe { Headers::of(self.messages[..self.len][at]) }
    }

    /// The record at a place below [`Self::len`].
    pub(crate) fn get(&self, at: usize) -> Taken<'_> {
        let message = self.messages[..self.len][at];
        // SAFETY: places below `len` hold records that librdkafka filled in and that live until `release`;
        // key and payload are null or point to as many bytes as stated.
        unsafe {
            let message_ref = &*message;
            if message_ref.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                let error = std::ffi::CStr::from_ptr(rd::rd_kafka_err2str(message_ref.err));
                let error = error.to_string_lossy().into_owned();
                return Taken::Error {
                    partition: message_ref.partition,
                    error,
                };
            }
            let bytes = |start: *mut std::ffi::c_void, len: usize| {
                (!start.is_null())
                    .then(|| std::slice::from_raw_parts(start.cast::<u8>().cast_const(), len))
            };
            let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let ms = rd::rd_kafka_message_timestamp(message, &raw mut kind);
            let kind = match kind {
                rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => {
                    TimestampKind::Producer
                }
                rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                    TimestampKind::Broker
                }
                rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => {
                    TimestampKind::Unknown
                }
            };
            Taken::Record(Record {
                partition: message_ref.partition,
                offset: message_ref.offset,
                timestamp: Timestamp { ms, kind },
                key: bytes(message_ref.key, message_ref.key_len),
                value: bytes(message_ref.payload, message_ref.len),
            })
        }
    }

    fn release(&mut self) {
        for message in &self.messages[..self.len] {
            // SAFETY: owned by the chunk and released once, since `len` is set to 0 right after.
            unsafe { rd::rd_kafka_message_destroy(*message) };
        }
        self.len = 0;
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.release();
    }
}
