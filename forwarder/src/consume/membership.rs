//! This member's place in its consumer group, as librdkafka knows it.
#![allow(
    unsafe_code,
    reason = "the safe crate hands a member's place on to its own producer only"
)]

use std::ffi::{CStr, c_char};

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::context::Context;
use crate::produce::Membership;

/// `None` for a consumer that is no member now.
pub(super) fn of(consumer: &BaseConsumer<Context>) -> Option<Membership> {
    // SAFETY: the client lives as long as the consumer; what is made here is read before it is destroyed, once.
    unsafe {
        let place = rd::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if place.is_null() {
            return None;
        }
        let membership = Membership {
            generation: rd::rd_kafka_consumer_group_metadata_generation_id(place),
            member: text(rd::rd_kafka_consumer_group_metadata_member_id(place)),
        };
        rd::rd_kafka_consumer_group_metadata_destroy(place);
        // Kafka takes offsets from one who is not a member, as if nobody shared the topic with him.
        let is_member = membership.generation >= 0 && !membership.member.is_empty();
        is_member.then_some(membership)
    }
}

/// Copies a text.
///
/// # Safety
/// It is absent (null), or ends with a zero byte.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    let text = unsafe { CStr::from_ptr(start) };
    text.to_string_lossy().into_owned()
}
