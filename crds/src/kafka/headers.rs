//! The last headers of a record.
#![allow(
    unsafe_code,
    reason = "the safe crate panics at a header whose name is not UTF-8, and any producer may write one"
)]

use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings as rd;
use rdkafka::message::BorrowedMessage;

/// Name and value of a header; `before` is the number of headers behind it.
#[must_use]
pub fn header_from_end<'a>(
    record: &'a BorrowedMessage<'_>,
    before: usize,
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let ok = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut headers = ptr::null_mut();
    // SAFETY: the record is valid as long as it is borrowed, and so are its headers, which it owns.
    let count = unsafe {
        if rd::rd_kafka_message_headers(record.ptr(), &raw mut headers) != ok {
            return None;
        }
        rd::rd_kafka_header_cnt(headers)
    };
    let place = count.checked_sub(before + 1)?;
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the name is a string with a null byte behind it, and the value has as many bytes as stated or is null.
    unsafe {
        let got = rd::rd_kafka_header_get_all(
            headers,
            place,
            &raw mut name,
            &raw mut value,
            &raw mut size,
        );
        if got != ok {
            return None;
        }
        let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast(), size));
        Some((CStr::from_ptr(name).to_bytes(), value))
    }
}
