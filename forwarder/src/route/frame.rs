//! The bytes of one message as NATS' client protocol wants them (`HPUB`).
//!
//! Source: <https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub>.

use ofa_crds::subject::{encode_text, push_asset_token, push_id_token};
use ofa_crds::wire::{HEADER_ASSET, HEADER_CURSOR, HEADER_ID, HEADER_PREV_OFFSET};

/// Longest text of the two offsets and their headers beside the cursor's topic and partition.
const MAX_OFFSETS_LEN: usize = 2 * 20 + 2 + HEADER_PREV_OFFSET.len() + 2 + 4;

/// Writes frames; keeps what they have in common.
pub(crate) struct Framer {
    /// `NATS/1.0\r\nNats-Msg-Id: <topic>/`
    head: Vec<u8>,
    subject: Vec<u8>,
    /// Headers with the full names, where the subject holds only digests.
    names: Vec<u8>,
}

impl Framer {
    pub(crate) fn new(topic: &str) -> Self {
        let head = format!("NATS/1.0\r\n{HEADER_CURSOR}: {topic}/").into_bytes();
        Self {
            head,
            subject: Vec::with_capacity(128),
            names: Vec::new(),
        }
    }

    /// Sets the subject of the next frame.
    pub(crate) fn set_subject(&mut self, asset: &str, id: &str) {
        self.subject.clear();
        self.names.clear();
        if push_asset_token(&mut self.subject, asset) {
            push_header(&mut self.names, HEADER_ASSET, asset);
        }
        self.subject.push(b'.');
        if push_id_token(&mut self.subject, id) {
            push_header(&mut self.names, HEADER_ID, id);
        }
    }

    /// The most bytes that headers and payload of the next frame can have: what `max_payload` limits.
    pub(crate) fn largest_size(&self, payload: usize) -> usize {
        // Ten digits and a slash for the partition, two line ends at most beyond the parts' own.
        self.head.len() + 11 + MAX_OFFSETS_LEN + self.names.len() + 4 + payload
    }

    /// Appends a frame up to its payload, and returns the bytes of its headers and payload. The payload and a line end
    /// are to follow.
    pub(crate) fn push_head(
        &self,
        out: &mut Vec<u8>,
        partition: i32,
        offset: i64,
        prev: Option<i64>,
        payload_len: usize,
    ) -> usize {
        let (mut digits, mut offset_digits, mut prev_digits) = (
            itoa::Buffer::new(),
            itoa::Buffer::new(),
            itoa::Buffer::new(),
        );
        let partition = digits.format(partition).as_bytes();
        let offset = offset_digits.format(offset).as_bytes();
        let prev = prev.map(|prev| prev_digits.format(prev).as_bytes());
        let prev_len = prev.map_or(0, |prev| HEADER_PREV_OFFSET.len() + 2 + prev.len() + 2);
        let headers = self.head.len()
            + partition.len()
            + 1
            + offset.len()
            + 2
            + prev_len
            + self.names.len()
            + 2;
        let total = headers + payload_len;

        out.reserve(self.subject.len() + total + 32);
        out.extend_from_slice(b"HPUB ");
        out.extend_from_slice(&self.subject);
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(headers).as_bytes());
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(total).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.head);
        out.extend_from_slice(partition);
        out.push(b'/');
        out.extend_from_slice(offset);
        out.extend_from_slice(b"\r\n");
        if let Some(prev) = prev {
            out.extend_from_slice(HEADER_PREV_OFFSET.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(prev);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.names);
        out.extend_from_slice(b"\r\n");
        total
    }
}

fn push_header(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(encode_text(text).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(asset: &str, id: &str, prev: Option<i64>, payload: &[u8]) -> (Framer, Vec<u8>, usize) {
        let mut framer = Framer::new("ofa_assets");
        framer.set_subject(asset, id);
        let mut out = Vec::new();
        let size = framer.push_head(&mut out, 3, 1042, prev, payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
        (framer, out, size)
    }

    #[test]
    fn a_frame_has_subject_cursor_and_payload() {
        let (_, with, _) = frame("OKUMA.123456", "Temp", Some(17), b"{}");
        insta::assert_snapshot!(String::from_utf8(with).unwrap().replace('\r', "<CR>"));
        let (_, without, _) = frame("CNC-1", "Temp", None, b"{}");
        insta::assert_snapshot!(String::from_utf8(without).unwrap().replace('\r', "<CR>"));
    }

    #[test]
    fn names_too_long_for_a_subject_travel_in_headers() {
        let (_, out, _) = frame(&"a".repeat(600), &"b c".repeat(300), None, b"{}");
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("\r\nOfa-Asset-Uuid: {}\r\n", "a".repeat(600))));
        assert!(text.contains(&format!("\r\nOfa-Id: {}\r\n", "b%20c".repeat(300))));
        assert!(text.lines().next().unwrap().len() < 200);
    }

    proptest! {
        #[test]
        fn the_stated_lengths_are_true(asset in "\\PC{1,30}", id in ".{1,30}", prev: Option<u32>, payload: Vec<u8>) {
            let (framer, out, size) = frame(&asset, &id, prev.map(i64::from), &payload);
            let line_end = out.windows(2).position(|two| two == b"\r\n").unwrap();
            let line = std::str::from_utf8(&out[..line_end]).unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            prop_assert_eq!(words.len(), 4);
            let (headers, total): (usize, usize) = (words[2].parse().unwrap(), words[3].parse().unwrap());
            prop_assert_eq!(total, size);
            prop_assert!(framer.largest_size(payload.len()) >= total);
            let body = &out[line_end + 2..];
            prop_assert_eq!(body.len(), total + 2);
            prop_assert!(body[..headers].ends_with(b"\r\n\r\n"));
            prop_assert_eq!(&body[headers..total], &payload[..]);
        }
    }
}
