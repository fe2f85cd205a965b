//! Hands records to librdkafka with the topic looked up once, and the source's headers and time stamp kept.
#![allow(
    unsafe_code,
    reason = "the safe crate looks the topic up by name for each record, along a list of all of them"
)]

use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::producer::{Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::writer::Context;
use crate::consume::Headers;

/// A derived topic, ready to be written to.
pub(crate) struct DerivedTopic {
    topic: NonNull<rd::rd_kafka_topic_t>,
    /// At least one.
    partitions: i32,
    // Behind `topic`'s last use: the client outlives its topics.
    producer: Arc<ThreadedProducer<Context>>,
}

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for DerivedTopic {}

/// What is written.
pub(crate) struct Outgoing<'a> {
    /// Partition of the source; a derived topic with as many has the record on the same one.
    pub(crate) partition: i32,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Milliseconds since the Unix epoch.
    pub(crate) timestamp_ms: i64,
}

impl DerivedTopic {
    /// `None` when librdkafka refuses the name.
    pub(crate) fn new(
        producer: &Arc<ThreadedProducer<Context>>,
        name: &str,
        partitions: i32,
    ) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client outlives the topic, which holds it; no configuration means the client's.
        let topic = unsafe {
            rd::rd_kafka_topic_new(
                producer.client().native_ptr(),
                name.as_ptr(),
                std::ptr::null_mut(),
            )
        };
        Some(Self {
            topic: NonNull::new(topic)?,
            partitions: partitions.max(1),
            producer: producer.clone(),
        })
    }

    /// The partition that records of a partition of the source go to.
    pub(crate) fn partition_of(&self, source: i32) -> usize {
        usize::try_from(source % self.partitions).unwrap_or_default()
    }

    /// Enqueues a record. The headers are gone with success only.
    pub(crate) fn enqueue(
        &self,
        record: &Outgoing<'_>,
        headers: &mut Option<Headers>,
    ) -> Result<(), RDKafkaErrorCode> {
        let memory = |bytes: &[u8]| rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
            ptr: bytes.as_ptr().cast::<c_void>().cast_mut(),
            size: bytes.len(),
        };
        type Value = rd::rd_kafka_vu_s__bindgen_ty_1;
        use rd::rd_kafka_vtype_t as kind;
        let copy = rd::RD_KAFKA_MSG_F_COPY;
        let partition = record.partition % self.partitions;
        let raw_headers = headers.as_ref().map(Headers::as_ptr);
        let arguments = [
            (
                kind::RD_KAFKA_VTYPE_RKT,
                Value {
                    rkt: self.topic.as_ptr(),
                },
            ),
            (kind::RD_KAFKA_VTYPE_PARTITION, Value { i32_: partition }),
            (kind::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: copy }),
            (
                kind::RD_KAFKA_VTYPE_KEY,
                Value {
                    mem: memory(record.key),
                },
            ),
            (
                kind::RD_KAFKA_VTYPE_VALUE,
                Value {
                    mem: memory(record.value),
                },
            ),
            (
                kind::RD_KAFKA_VTYPE_TIMESTAMP,
                Value {
                    i64_: record.timestamp_ms,
                },
            ),
            (
                kind::RD_KAFKA_VTYPE_HEADERS,
                Value {
                    headers: raw_headers.unwrap_or(std::ptr::null_mut()),
                },
            ),
        ]
        .map(|(vtype, u)| rd::rd_kafka_vu_t { vtype, u });
        let used = if raw_headers.is_some() {
            arguments.len()
        } else {
            arguments.len() - 1
        };
        // SAFETY: client and topic live as long as `self`; key and value are copied within the call; the
        // headers become librdkafka's when it succeeds, and are forgotten here then.
        let code = unsafe {
            let error = rd::rd_kafka_produceva(
                self.producer.client().native_ptr(),
                arguments.as_ptr(),
                used,
            );
            if error.is_null() {
                rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            } else {
                let code = rd::rd_kafka_error_code(error);
                rd::rd_kafka_error_destroy(error);
                code
            }
        };
        if code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            if let Some(headers) = headers.take() {
                headers.forget();
            }
            return Ok(());
        }
        Err(code.into())
    }
}

impl Drop for DerivedTopic {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once.
        unsafe { rd::rd_kafka_topic_destroy(self.topic.as_ptr()) };
    }
}
