//! Record batches as producers send them (message format 2). Pure.

use bytes::Bytes;

use crate::fetch::EncodedHeaders;
use crate::kafka::layout;

/// Not compressed, and with time stamps by the producer.
const ATTRIBUTES: i16 = layout::TRANSACTIONAL;

/// The leader puts its epoch there.
const NO_EPOCH: i32 = -1;

/// Bytes that are set aside for a batch, at most: what thousands of partitions have at once stays small, whatever each has had before.
const MAX_EXPECTED: usize = 64 * 1024;

/// The producer that a batch is of, in the words of KIP-98.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProducerIdentity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A record to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Milliseconds since the Unix epoch.
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: EncodedHeaders<'a>,
    /// Headers behind those.
    pub(crate) further: &'a [(&'a [u8], &'a [u8])],
}

impl NewRecord<'_> {
    /// At most this many bytes in a batch.
    pub(super) fn most_bytes(&self) -> usize {
        /// A length or a difference takes so many bytes at most; a record has six beside those of its headers.
        const VARINT: usize = 10;
        let further = self.further.iter();
        let further: usize = further
            .map(|(name, value)| name.len() + value.len() + 2 * VARINT)
            .sum();
        1 + 6 * VARINT + self.key.len() + self.value.len() + self.headers.bytes.len() + further
    }
}

/// A batch that grows.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    bytes: Vec<u8>,
    /// Bytes that it will have, by those of the batch before.
    expected: usize,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records.
    pub(super) fn count(&self) -> i32 {
        self.count
    }

    /// Takes the batch; the next one begins.
    pub(super) fn take(&mut self) -> Self {
        // Most are somewhat smaller, so that they need not be moved as they grow.
        let expected = (self.len() + self.len() / 4).min(MAX_EXPECTED);
        let next = Self {
            expected,
            ..Self::default()
        };
        std::mem::replace(self, next)
    }

    pub(super) fn push(&mut self, record: &NewRecord<'_>) {
        if self.count == 0 {
            self.bytes.reserve(self.expected);
            self.bytes.resize(layout::RECORDS, 0);
            self.base_timestamp = record.timestamp_ms;
            self.max_timestamp = record.timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        let timestamp = record.timestamp_ms.wrapping_sub(self.base_timestamp);
        let offset = i64::from(self.count);
        let further = record.further.iter();
        let count = i64::from(record.headers.count) + length(record.further.len());
        let fixed = 1 + varint_len(timestamp) + varint_len(offset) + varint_len(count);
        let parts = [record.key, record.value].into_iter();
        let further_parts = further.clone().flat_map(|&(name, value)| [name, value]);
        let parts: usize = parts.chain(further_parts).map(part_len).sum();

        let bytes = &mut self.bytes;
        put_varint(bytes, length(fixed + parts + record.headers.bytes.len()));
        // No attributes are defined for a record.
        bytes.push(0);
        put_varint(bytes, timestamp);
        put_varint(bytes, offset);
        put_part(bytes, record.key);
        put_part(bytes, record.value);
        put_varint(bytes, count);
        bytes.extend_from_slice(record.headers.bytes);
        for (name, value) in further {
            put_part(bytes, name);
            put_part(bytes, value);
        }
        self.count += 1;
    }

    /// The whole batch, whose first record has this number among those of its producer in its partition.
    pub(super) fn finish(self, producer: ProducerIdentity, base_sequence: i32) -> Bytes {
        let mut bytes = self.bytes;
        let len = i32::try_from(bytes.len() - layout::COUNTED_FROM).unwrap_or(i32::MAX);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(layout::LENGTH, &len.to_be_bytes());
        put(layout::LEADER_EPOCH, &NO_EPOCH.to_be_bytes());
        put(layout::MAGIC, &[layout::FORMAT]);
        put(layout::ATTRIBUTES, &ATTRIBUTES.to_be_bytes());
        put(layout::LAST_OFFSET_DELTA, &(self.count - 1).to_be_bytes());
        put(layout::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(layout::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(layout::PRODUCER_ID, &producer.id.to_be_bytes());
        put(layout::PRODUCER_EPOCH, &producer.epoch.to_be_bytes());
        put(layout::BASE_SEQUENCE, &base_sequence.to_be_bytes());
        put(layout::COUNT, &self.count.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[layout::CHECKED_FROM..]);
        bytes[layout::CHECKSUM..layout::CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
        bytes.into()
    }
}

/// Lengths are those of things in memory.
fn length(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn part_len(part: &[u8]) -> usize {
    varint_len(length(part.len())) + part.len()
}

fn put_part(bytes: &mut Vec<u8>, part: &[u8]) {
    put_varint(bytes, length(part.len()));
    bytes.extend_from_slice(part);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_len(value: i64) -> usize {
    let bits = (64 - (zigzag(value) | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

/// A number in zig-zag encoding, seven bits a byte.
fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::{RecordBatchDecoder, TimestampType};
    use proptest::prelude::*;

    use super::*;

    type Header = (Vec<u8>, Vec<u8>);

    fn encoded(headers: &[Header]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in headers {
            put_part(&mut bytes, name);
            put_part(&mut bytes, value);
        }
        bytes
    }

    fn header() -> impl Strategy<Value = Header> {
        ("[a-z]{1,8}".prop_map(String::into_bytes), any::<Vec<u8>>())
    }

    #[test]
    fn numbers_take_as_many_bytes_as_is_said() {
        for value in [0, -1, 1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value), "{value}");
        }
    }

    proptest! {
        /// Read back by another implementation of the format.
        #[test]
        fn a_batch_reads_back_as_written(
            records in prop::collection::vec(
                (any::<Vec<u8>>(), any::<Vec<u8>>(), 0..i64::from(u32::MAX), prop::collection::vec(header(), 0..3), header()),
                1..20,
            ),
            id in 0..i64::MAX,
            epoch in 0..i16::MAX,
            sequence in 0..i32::MAX - 20,
        ) {
            let mut batch = BatchBuilder::default();
            for (key, value, timestamp_ms, headers, further) in &records {
                let bytes = encoded(headers);
                let record = NewRecord {
                    key,
                    value,
                    timestamp_ms: *timestamp_ms,
                    headers: EncodedHeaders { count: u32::try_from(headers.len()).unwrap(), bytes: &bytes },
                    further: &[(&further.0, &further.1)],
                };
                let before = batch.len().max(layout::RECORDS);
                batch.push(&record);
                prop_assert!(batch.len() - before <= record.most_bytes());
            }
            let mut bytes = batch.finish(ProducerIdentity { id, epoch }, sequence);
            let read = RecordBatchDecoder::decode(&mut bytes).unwrap().records;
            prop_assert_eq!(read.len(), records.len());
            for (at, (read, (key, value, timestamp_ms, _, further))) in read.iter().zip(&records).enumerate() {
                prop_assert_eq!(read.key.as_deref(), Some(&key[..]));
                prop_assert_eq!(read.value.as_deref(), Some(&value[..]));
                prop_assert_eq!(read.timestamp, *timestamp_ms);
                prop_assert_eq!(read.timestamp_type, TimestampType::Creation);
                prop_assert_eq!((read.producer_id, read.producer_epoch), (id, epoch));
                prop_assert_eq!(read.sequence, sequence + i32::try_from(at).unwrap());
                prop_assert!(read.transactional && !read.control);
                let name = String::from_utf8(further.0.clone()).unwrap();
                let last = read.headers.iter().next_back().unwrap();
                // Of headers with one name the last counts there.
                if last.0.as_str() == name {
                    prop_assert_eq!(last.1.as_deref(), Some(&further.1[..]));
                }
            }
        }
    }
}
