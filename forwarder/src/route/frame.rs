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
    /// Headers that few records have: the full names, where the subject holds only digests, and what is added.
    further: Vec<u8>,
}

impl Framer {
    pub(crate) fn new(topic: &str) -> Self {
        let head = format!("NATS/1.0\r\n{HEADER_CURSOR}: {topic}/").into_bytes();
        Self {
            head,
            subject: Vec::with_capacity(128),
            further: Vec::new(),
        }
    }

    /// Sets the subject of the next frame.
    pub(crate) fn set_subject(&mut self, asset: &str, id: &str) {
        self.subject.clear();
        self.further.clear();
        if push_asset_token(&mut self.subject, asset) {
            push_header(&mut self.further, HEADER_ASSET, asset);
        }
        self.subject.push(b'.');
        if push_id_token(&mut self.subject, id) {
            push_header(&mut self.further, HEADER_ID, id);
        }
    }

    /// Adds a header to the next frame. `text` has no line breaks.
    pub(crate) fn add_header(&mut self, name: &str, text: &str) {
        for part in [name, ": ", text, "\r\n"] {
            self.further.extend_from_slice(part.as_bytes());
        }
    }

    /// The most bytes that headers and payload of the next frame can have: what `max_payload` limits.
    pub(crate) fn largest_size(&self, payload: usize) -> usize {
        // Ten digits and a slash for the partition, two line ends at most beyond the parts' own.
        self.head.len() + 11 + MAX_OFFSETS_LEN + self.further.len() + 4 + payload
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
            + self.further.len()
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
        out.extend_from_slice(&self.further);
        out.extend_from_slice(b"\r\n");
        total
    }
}

/// Of any text, encoded.
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
    fn a_header_is_added_to_one_frame() {
        let (mut framer, plain, _) = frame("A", "x", None, b"{}");
        framer.add_header("Ofa-Moved-From", "asset_stream_Weld_topic");
        let mut out = Vec::new();
        framer.push_head(&mut out, 3, 1042, None, 2);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\r\nOfa-Moved-From: asset_stream_Weld_topic\r\n\r\n"));
        framer.set_subject("A", "x");
        let mut out = Vec::new();
        framer.push_head(&mut out, 3, 1042, None, 2);
        assert!(plain.starts_with(&out));
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
