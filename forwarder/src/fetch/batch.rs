//! Record batches as brokers keep and send them (message format 2), read in place. Pure.

use bytes::Bytes;
use kafka_protocol::compression::{Decompressor as _, Gzip, Lz4, Snappy, Zstd};
use ofa_crds::cursor;
use thiserror::Error;

use crate::kafka::layout;
use crate::route::TimestampKind;

/// Why a batch cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum BatchError {
    #[error("the batch at offset {0} is cut off")]
    Short(i64),
    #[error("the batch at offset {0} has message format {1}; have the topic rewritten in format 2")]
    Format(i64, u8),
    #[error("the batch at offset {0} does not match its checksum")]
    Checksum(i64),
    #[error("the batch at offset {0} cannot be decompressed: {1}")]
    Compression(i64, String),
    #[error("the batch at offset {0} breaks Kafka's format")]
    Malformed(i64),
}

/// A batch whose checksum was right.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) producer_id: i64,
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    /// Uncompressed.
    pub(super) records: Bytes,
}

impl Batch {
    /// Takes the first batch off `data`.
    pub(super) fn take(data: &mut Bytes) -> Result<Self, BatchError> {
        let head = Head::of(data)?;
        let at = head.base_offset;
        let whole = data.split_to(head.len);
        let format = whole[layout::MAGIC];
        if format != layout::FORMAT {
            return Err(BatchError::Format(at, format));
        }
        if whole.len() < layout::RECORDS {
            return Err(BatchError::Malformed(at));
        }
        let checksum = u32::from_be_bytes(array(&whole, layout::CHECKSUM));
        if crc32c::crc32c(&whole[layout::CHECKED_FROM..]) != checksum {
            return Err(BatchError::Checksum(at));
        }
        let attributes = i16::from_be_bytes(array(&whole, layout::ATTRIBUTES));
        Ok(Self {
            base_offset: at,
            last_offset: head.last_offset,
            attributes,
            base_timestamp: i64::from_be_bytes(array(&whole, layout::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(array(&whole, layout::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(&whole, layout::PRODUCER_ID)),
            count: i32::from_be_bytes(array(&whole, layout::COUNT)),
            records: decompress(at, attributes, whole.slice(layout::RECORDS..))?,
        })
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & layout::TRANSACTIONAL != 0
    }

    /// Whether it holds a marker of a transaction in place of records.
    pub(super) fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// What its records' time stamps are.
    pub(super) fn timestamp_kind(&self) -> TimestampKind {
        if self.has_append_time() {
            TimestampKind::Broker
        } else {
            TimestampKind::Producer
        }
    }

    fn has_append_time(&self) -> bool {
        self.attributes & 0x08 != 0
    }

    /// Its records, from the first.
    pub(super) fn reader(&self) -> RecordReader {
        RecordReader {
            at: 0,
            left: self.count,
        }
    }
}

/// The last complete batch's end, and the epoch of the leader that wrote it; `None` when there is no batch.
pub(super) fn end_of(data: &Bytes) -> Option<(i64, i32)> {
    let (mut rest, mut end) = (data.clone(), None);
    while let Ok(head) = Head::of(&rest) {
        end = Some((head.last_offset + 1, head.leader_epoch));
        let _ = rest.split_to(head.len);
    }
    end
}

/// What can be told of a batch without reading it.
struct Head {
    base_offset: i64,
    last_offset: i64,
    leader_epoch: i32,
    len: usize,
}

impl Head {
    fn of(data: &[u8]) -> Result<Self, BatchError> {
        if data.len() < layout::COUNTED_FROM {
            return Err(BatchError::Short(-1));
        }
        let base_offset = i64::from_be_bytes(array(data, 0));
        let len = usize::try_from(i32::from_be_bytes(array(data, layout::LENGTH)))
            .map_err(|_| BatchError::Malformed(base_offset))?
            + layout::COUNTED_FROM;
        // What is read below lies before it.
        if len < layout::BASE_TIMESTAMP {
            return Err(BatchError::Malformed(base_offset));
        }
        if data.len() < len {
            return Err(BatchError::Short(base_offset));
        }
        let delta = i32::from_be_bytes(array(data, layout::LAST_OFFSET_DELTA));
        let last_offset =
            following(base_offset, i64::from(delta)).ok_or(BatchError::Malformed(base_offset))?;
        Ok(Self {
            base_offset,
            last_offset,
            leader_epoch: i32::from_be_bytes(array(data, layout::LEADER_EPOCH)),
            len,
        })
    }
}

/// The offset that lies so far behind the first of a batch, if another can come behind it.
fn following(base_offset: i64, delta: i64) -> Option<i64> {
    let offset = base_offset.checked_add(delta);
    offset.filter(|offset| *offset < i64::MAX)
}

fn array<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&data[at..at + N]);
    bytes
}

fn decompress(at: i64, attributes: i16, mut records: Bytes) -> Result<Bytes, BatchError> {
    let all = |buffer: &mut Bytes| Ok(std::mem::take(buffer));
    let result = match attributes & 0x07 {
        0 => return Ok(records),
        1 => Gzip::decompress(&mut records, all),
        2 => Snappy::decompress(&mut records, all),
        3 => Lz4::decompress(&mut records, all),
        4 => Zstd::decompress(&mut records, all),
        _ => return Err(BatchError::Malformed(at)),
    };
    result.map_err(|error| BatchError::Compression(at, format!("{error:#}")))
}

/// Where a record's parts lie within its batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordParts {
    pub(super) offset: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) timestamp: i64,
    pub(super) key: Part,
    pub(super) value: Part,
    /// Where the headers begin, and how many there are.
    pub(super) headers: (u32, u32),
}

/// Bytes that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    at: u32,
    /// -1 for absent.
    len: i32,
}

impl Part {
    pub(super) fn of(self, records: &[u8]) -> Option<&[u8]> {
        let len = usize::try_from(self.len).ok()?;
        records.get(self.at as usize..)?.get(..len)
    }
}

/// Goes over a batch's records.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordReader {
    at: usize,
    left: i32,
}

impl RecordReader {
    /// Whether the last record was read.
    pub(super) fn is_done(self) -> bool {
        self.left <= 0
    }

    /// The next record; `None` behind the last.
    pub(super) fn next(&mut self, batch: &Batch) -> Option<Result<RecordParts, BatchError>> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let malformed = BatchError::Malformed(batch.base_offset);
        Some(
            self.read(batch)
                .ok_or(malformed)
                .inspect_err(|_| self.left = 0),
        )
    }

    fn read(&mut self, batch: &Batch) -> Option<RecordParts> {
        let data = &batch.records[..];
        let mut reader = Reader { data, at: self.at };
        let len = usize::try_from(reader.varint()?).ok()?;
        let end = reader
            .at
            .checked_add(len)
            .filter(|end| *end <= data.len())?;
        // No attributes are defined for a record.
        reader.at += 1;
        let timestamp_delta = reader.varint()?;
        let offset_delta = reader.varint()?;
        let key = reader.part()?;
        let value = reader.part()?;
        let headers = reader.varint()?;
        let parts = RecordParts {
            offset: following(batch.base_offset, offset_delta)?,
            timestamp: if batch.has_append_time() {
                batch.max_timestamp
            } else {
                batch.base_timestamp.checked_add(timestamp_delta)?
            },
            key,
            value,
            headers: (u32::try_from(reader.at).ok()?, u32::try_from(headers).ok()?),
        };
        if reader.at > end {
            return None;
        }
        self.at = end;
        Some(parts)
    }
}

/// The headers of a record: names and values, as many as are well-formed.
pub(super) fn headers(
    records: &[u8],
    (at, count): (u32, u32),
) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let mut reader = Reader {
        data: records,
        at: at as usize,
    };
    (0..count).map_while(move |_| reader.header())
}

/// A record's headers as they stand in its batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EncodedHeaders<'a> {
    pub(crate) count: u32,
    pub(crate) bytes: &'a [u8],
}

/// The headers of a record, as many as are well-formed, to be written elsewhere.
pub(super) fn encoded_headers(records: &[u8], (at, count): (u32, u32)) -> EncodedHeaders<'_> {
    let at = at as usize;
    let mut reader = Reader { data: records, at };
    let (mut well_formed, mut end) = (0, at);
    while well_formed < count && reader.header().is_some() {
        (well_formed, end) = (well_formed + 1, reader.at);
    }
    EncodedHeaders {
        count: well_formed,
        bytes: records.get(at..end).unwrap_or_default(),
    }
}

/// The topic that an asset was in before, where its record says so in the last two of its headers.
#[inline]
pub(super) fn moved_from(records: &[u8], place: (u32, u32)) -> Option<&str> {
    if place.1 < 2 {
        return None;
    }
    let mut last = headers(records, place).skip(place.1 as usize - 2);
    let (before_last, last) = (last.next()?, last.next()?);
    cursor::moved_from(before_last.0, last)
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A number in zig-zag encoding, seven bits a byte.
    #[inline]
    fn varint(&mut self) -> Option<i64> {
        let first = *self.data.get(self.at)?;
        self.at += 1;
        // Nearly all lengths and differences.
        if first < 0x80 {
            return Some(zigzag(u64::from(first)));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = *self.data.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(zigzag(value));
            }
        }
        None
    }

    /// Name and value of a header; a name cannot be absent.
    fn header(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let name = self.part()?.of(self.data)?;
        Some((name, self.part()?.of(self.data)))
    }

    #[inline]
    fn part(&mut self) -> Option<Part> {
        let len = i32::try_from(self.varint()?).ok()?;
        let at = u32::try_from(self.at).ok()?;
        if let Ok(len) = usize::try_from(len) {
            self.at = self
                .at
                .checked_add(len)
                .filter(|end| *end <= self.data.len())?;
        }
        Some(Part { at, len })
    }
}

#[inline]
fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
