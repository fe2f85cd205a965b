//! The insides that fuzz targets, benchmarks and the count of allocations reach (feature `internals`). No part of the
//! product's own interface.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "that is how a defect is reported"
)]

use bytes::BytesMut;
use ofa_crds::{KeyHash, ShardMap};

use crate::publish::{Batch, parse};
use crate::route::{self, Encoder, Framer, PayloadFormat, Tenure, Timestamp, TimestampKind};

/// Reads what a NATS server may say, whole and byte by byte: both must tell the same.
pub fn nats_protocol(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut expected = Vec::new();
    let failed = loop {
        match parse(&mut whole) {
            Ok(Some(op)) => expected.push(op),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    let (mut pieces, mut found, mut failed_too) = (BytesMut::new(), Vec::new(), false);
    for byte in data {
        if failed_too {
            break;
        }
        pieces.extend_from_slice(&[*byte]);
        match parse(&mut pieces) {
            Ok(Some(op)) => found.push(op),
            Ok(None) => {}
            Err(_) => failed_too = true,
        }
    }
    assert_eq!((found, failed_too), (expected, failed));
}

/// Writes a frame and reads its line again: the lengths must be true.
pub fn nats_frame(asset: &str, id: &str, payload: &[u8]) {
    let mut framer = Framer::new("topic");
    framer.set_subject(asset, id);
    let mut frame = Vec::new();
    let size = framer.push_head(&mut frame, 1, 2, Some(1), payload.len());
    frame.extend_from_slice(payload);
    frame.extend_from_slice(b"\r\n");
    assert!(size <= framer.largest_size(payload.len()));
    let end = memchr::memmem::find(&frame, b"\r\n").expect("a line");
    let line = std::str::from_utf8(&frame[..end]).expect("a line of text");
    let words: Vec<&str> = line.split(' ').collect();
    let [command, _, headers, total] = words[..] else {
        panic!("{line:?}");
    };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    assert_eq!((command, number(total)), ("HPUB", size));
    assert_eq!(&frame[end + 2 + number(headers)..frame.len() - 2], payload);
}

/// Reads what a broker may send as records.
pub fn kafka_records(data: &[u8]) {
    crate::fetch::read_anything(data);
}

/// What is done for each record between Kafka's bytes and those for NATS.
pub struct Hot {
    encoder: Encoder,
    map: ShardMap,
    batch: Batch,
    offset: i64,
    hashes: Vec<KeyHash>,
}

/// Records taken together.
const CHUNK: usize = 1000;

impl Hot {
    /// For a topic, with this map and format.
    #[must_use]
    pub fn new(map: ShardMap, format: PayloadFormat) -> Self {
        Self {
            encoder: Encoder::new("ofa_assets", format),
            map,
            batch: Batch::new(Vec::new()),
            offset: 0,
            hashes: Vec::with_capacity(CHUNK),
        }
    }

    /// Routes and encodes records of partition 0, keys and values, in chunks as they are taken from a broker. A batch is
    /// cleared when it would go to its shard.
    pub fn take<T: AsRef<[u8]>>(&mut self, records: &[(T, T)]) {
        for chunk in records.chunks(CHUNK) {
            self.hashes.clear();
            let hashes = chunk.iter().map(|(key, _)| KeyHash::of(key.as_ref()));
            self.hashes.extend(hashes);
            self.encoder.look_ahead(&self.hashes);
            for (at, (key, value)) in chunk.iter().enumerate() {
                self.take_one(self.hashes[at], key.as_ref(), value.as_ref());
            }
            self.clear();
        }
    }

    fn take_one(&mut self, hash: KeyHash, key: &[u8], value: &[u8]) {
        self.offset += 1;
        let record = route::Record {
            partition: 0,
            offset: self.offset,
            timestamp: Timestamp {
                ms: 1_767_322_985_678 + self.offset / 1000,
                kind: TimestampKind::Producer,
            },
            key: Some(key),
            value: Some(value),
            moved_from: None,
        };
        let routed = self.encoder.route(&record, hash, &self.map);
        let routed = routed.expect("an event");
        self.encoder
            .encode(&record, &routed, Tenure(1), 1024 * 1024, &mut self.batch)
            .expect("an event of a size that is allowed");
    }

    /// Begins a batch anew, in the buffer used before.
    fn clear(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Batch::new(Vec::new()));
        self.batch = Batch::new(batch.into_parts().1);
    }
}
