//! A record's headers, copied so that they can be written elsewhere.
#![allow(
    unsafe_code,
    reason = "the safe crate copies headers one by one through its own types"
)]

use std::ptr::NonNull;

use rdkafka::bindings as rd;

/// All headers of a record.
pub(crate) struct Headers(NonNull<rd::rd_kafka_headers_t>);

impl Headers {
    /// Copies a record's headers; `None` when it has none.
    ///
    /// # Safety
    /// `message` is a record that librdkafka has filled in and nobody has released.
    pub(super) unsafe fn of(message: *const rd::rd_kafka_message_t) -> Option<Self> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: `message` is valid by this function's contract, and owns the headers that are found.
        let copy = unsafe {
            let error = rd::rd_kafka_message_headers(message, &raw mut headers);
            if error != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
                return None;
            }
            rd::rd_kafka_headers_copy(headers)
        };
        NonNull::new(copy).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut rd::rd_kafka_headers_t {
        self.0.as_ptr()
    }

    /// They are librdkafka's now.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: copied by `of` and destroyed once.
        unsafe { rd::rd_kafka_headers_destroy(self.0.as_ptr()) };
    }
}
