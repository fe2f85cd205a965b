//! Records from Kafka at the least cost that librdkafka allows: a batch at a time, borrowed.
#![allow(unsafe_code)] // librdkafka's batch interface has no safe binding, and per-record calls would be no ceiling.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// Records taken with one call.
const BATCH: usize = 2_000;

/// A record, borrowed from librdkafka.
pub(super) struct Record<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The queue of a consumer whose partitions are assigned.
pub(super) struct Records {
    // Before the consumer: dropped first.
    queue: Queue,
    consumer: BaseConsumer,
    batch: Vec<*mut rd::rd_kafka_message_t>,
}

struct Queue(*mut rd::rd_kafka_queue_t);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: got from rd_kafka_queue_get_consumer, and let go once.
        unsafe { rd::rd_kafka_queue_destroy(self.0) };
    }
}

impl Records {
    pub(super) fn new(consumer: BaseConsumer) -> Result<Self> {
        // SAFETY: the client lives as long as the consumer, which lives as long as the queue.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        anyhow::ensure!(!queue.is_null(), "the consumer has no queue");
        Ok(Self {
            queue: Queue(queue),
            consumer,
            batch: vec![std::ptr::null_mut(); BATCH],
        })
    }

    pub(super) fn consumer(&self) -> &BaseConsumer {
        &self.consumer
    }

    /// Hands what comes within `wait` to `each`; returns the number of records.
    pub(super) fn take(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(&Record<'_>),
    ) -> Result<u64> {
        let wait = i32::try_from(wait.as_millis()).context("a wait too long")?;
        // SAFETY: the queue lives, and the array has as many places as it is said to have.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue.0, wait, self.batch.as_mut_ptr(), BATCH)
        };
        let mut records = 0;
        for &message in &self.batch[..usize::try_from(count).unwrap_or(0)] {
            // SAFETY: each of the `count` messages is ours until it is destroyed, right below.
            unsafe {
                if (*message).err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    each(&Record {
                        partition: (*message).partition,
                        offset: (*message).offset,
                        key: bytes((*message).key, (*message).key_len),
                        value: bytes((*message).payload, (*message).len),
                    });
                    records += 1;
                }
                rd::rd_kafka_message_destroy(message);
            }
        }
        Ok(records)
    }
}

/// SAFETY: `start` must be null or point to `len` bytes that live as long as `'a`.
unsafe fn bytes<'a>(start: *const std::ffi::c_void, len: usize) -> &'a [u8] {
    if start.is_null() {
        &[]
    } else {
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts(start.cast(), len) }
    }
}
