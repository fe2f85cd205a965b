//! Records taken together, borrowed from what the broker sent.

use bytes::Bytes;
use ofa_crds::KeyHash;

use super::batch::{self, EncodedHeaders, RecordParts};
use crate::route::{Record, Timestamp, TimestampKind};

/// Records, each with its place in the bytes they were read from.
pub(crate) struct Chunk {
    places: Vec<Place>,
    buffers: Vec<Buffer>,
    /// By place; empty where nobody has asked for them.
    hashes: Vec<KeyHash>,
}

enum Place {
    Record { buffer: u32, parts: RecordParts },
    Error { partition: i32, error: String },
}

struct Buffer {
    partition: i32,
    kind: TimestampKind,
    records: Bytes,
}

/// One place of a chunk.
pub(crate) enum Taken<'a> {
    Record(Record<'a>),
    /// The partition reports a problem in place of a record.
    Error {
        partition: i32,
        error: &'a str,
    },
}

impl Chunk {
    /// Most records in a chunk: what is looked up for all of them together is still in the processor's nearest caches when the
    /// last one is worked off.
    pub(crate) const MOST: usize = 512;

    pub(crate) fn new() -> Self {
        Self {
            places: Vec::with_capacity(Self::MOST),
            buffers: Vec::new(),
            hashes: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there was more to take than the chunk has places for, most likely.
    pub(crate) fn is_full(&self) -> bool {
        self.places.len() >= Self::MOST
    }

    /// The record at a place below [`Self::len`]. Better borrowed from what is returned: to move it out is to read in whole what was just
    /// written in parts, and the processor waits for that.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Taken<'_> {
        match &self.places[at] {
            Place::Record { buffer, parts } => {
                let buffer = &self.buffers[*buffer as usize];
                Taken::Record(Record {
                    partition: buffer.partition,
                    offset: parts.offset,
                    timestamp: Timestamp {
                        ms: parts.timestamp,
                        kind: buffer.kind,
                    },
                    key: parts.key.of(&buffer.records),
                    value: parts.value.of(&buffer.records),
                    moved_from: batch::moved_from(&buffer.records, parts.headers),
                })
            }
            Place::Error { partition, error } => Taken::Error {
                partition: *partition,
                error,
            },
        }
    }

    /// Hashes the keys of all records at once, so that what is known of their assets can be fetched together.
    pub(crate) fn hash_keys(&mut self) -> &[KeyHash] {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend((0..self.len()).map(|at| self.hash_of(at)));
        self.hashes = hashes;
        &self.hashes
    }

    /// The hash of the key of the record at a place below [`Self::len`].
    #[inline]
    pub(crate) fn hash(&self, at: usize) -> KeyHash {
        let known = self.hashes.get(at).copied();
        known.unwrap_or_else(|| self.hash_of(at))
    }

    fn hash_of(&self, at: usize) -> KeyHash {
        let Taken::Record(record) = self.get(at) else {
            return KeyHash(0);
        };
        KeyHash::of(record.key.unwrap_or_default())
    }

    /// The headers of the record at a place below [`Self::len`].
    pub(crate) fn headers(&self, at: usize) -> EncodedHeaders<'_> {
        match &self.places[at] {
            Place::Record { buffer, parts } => {
                let records = &self.buffers[*buffer as usize].records;
                batch::encoded_headers(records, parts.headers)
            }
            Place::Error { .. } => EncodedHeaders::default(),
        }
    }

    /// Forgets what is left from `at` on of these partitions: it will come again, or to another reader.
    pub(crate) fn forget(&mut self, at: usize, partitions: &[i32]) {
        let (places, buffers) = (&mut self.places, &self.buffers);
        let mut place = 0;
        places.retain(|taken| {
            place += 1;
            let partition = match taken {
                Place::Record { buffer, .. } => buffers[*buffer as usize].partition,
                Place::Error { partition, .. } => *partition,
            };
            place <= at || !partitions.contains(&partition)
        });
        self.hashes.clear();
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.buffers.clear();
        self.hashes.clear();
    }

    /// Begins with records of other bytes; returns what to name them by.
    pub(super) fn add_buffer(
        &mut self,
        partition: i32,
        kind: TimestampKind,
        records: Bytes,
    ) -> u32 {
        self.buffers.push(Buffer {
            partition,
            kind,
            records,
        });
        u32::try_from(self.buffers.len() - 1).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn push(&mut self, buffer: u32, parts: RecordParts) {
        self.places.push(Place::Record { buffer, parts });
    }

    pub(super) fn push_error(&mut self, partition: i32, error: String) {
        self.places.push(Place::Error { partition, error });
    }
}
