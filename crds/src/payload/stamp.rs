//! The members that a forwarder adds to an event.

use super::timestamp::{Rfc3339, TimestampKind};

/// A Kafka record's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Milliseconds since the Unix epoch.
    pub ms: i64,
    /// Who set it.
    pub kind: TimestampKind,
}

/// Writes the members; keeps their text, which is the same for all records of one millisecond.
#[derive(Debug)]
pub struct Stamp {
    /// `"asset_forwarder_timestamp":"<now>","kafka_timestamp":`, and the rest for `of`.
    text: Vec<u8>,
    head_len: usize,
    of: Option<Timestamp>,
    kafka: Rfc3339,
}

impl Default for Stamp {
    fn default() -> Self {
        let mut stamp = Self {
            text: Vec::with_capacity(192),
            head_len: 0,
            of: None,
            kafka: Rfc3339::default(),
        };
        stamp.set_now(0);
        stamp
    }
}

impl Stamp {
    /// Sets the time of handling, in milliseconds since the Unix epoch.
    pub fn set_now(&mut self, now_ms: i64) {
        self.of = None;
        self.text.clear();
        self.text
            .extend_from_slice(b"\"asset_forwarder_timestamp\":\"");
        self.text
            .extend_from_slice(Rfc3339::default().format(now_ms));
        self.text.extend_from_slice(b"\",\"kafka_timestamp\":");
        self.head_len = self.text.len();
    }

    /// The three members, without braces.
    pub(super) fn members(&mut self, timestamp: Timestamp) -> &[u8] {
        if self.of != Some(timestamp) {
            self.of = Some(timestamp);
            self.set_timestamp(timestamp);
        }
        &self.text
    }

    fn set_timestamp(&mut self, timestamp: Timestamp) {
        let out = &mut self.text;
        out.truncate(self.head_len);
        if timestamp.kind == TimestampKind::Unknown {
            out.extend_from_slice(b"null");
        } else {
            out.push(b'"');
            out.extend_from_slice(self.kafka.format(timestamp.ms));
            out.push(b'"');
        }
        out.extend_from_slice(b",\"kafka_timestamp_type\":\"");
        out.extend_from_slice(timestamp.kind.as_str().as_bytes());
        out.push(b'"');
    }
}
