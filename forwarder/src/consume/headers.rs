//! A record's headers, as librdkafka takes them to be written elsewhere.
#![allow(
    unsafe_code,
    reason = "a producer that writes many records takes them in librdkafka's own form only"
)]

use std::ptr::NonNull;

use rdkafka::bindings as rd;

/// All headers of a record.
pub(crate) struct Headers(NonNull<rd::rd_kafka_headers_t>);

impl Headers {
    /// Copies headers, in their order; `None` when there are none.
    pub(crate) fn of<'a>(
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Option<Self> {
        let mut headers = headers.peekable();
        headers.peek()?;
        // SAFETY: the list is made here and owned by the value returned.
        let list = Self(NonNull::new(unsafe { rd::rd_kafka_headers_new(4) })?);
        for (name, value) in headers {
            // A null pointer is a value that is absent; an empty one points somewhere.
            let (start, len) = value.map_or((std::ptr::null(), 0), |it| (it.as_ptr(), it.len()));
            // SAFETY: names and values are valid for the lengths stated, and copied by the call.
            unsafe {
                rd::rd_kafka_header_add(
                    list.as_ptr(),
                    name.as_ptr().cast(),
                    name.len().cast_signed(),
                    start.cast(),
                    len.cast_signed(),
                );
            }
        }
        Some(list)
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
        // SAFETY: made by `of` and destroyed once.
        unsafe { rd::rd_kafka_headers_destroy(self.0.as_ptr()) };
    }
}
