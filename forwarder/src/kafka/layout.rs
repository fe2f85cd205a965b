//! Where the fields of a record batch stand (message format 2).
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>.

pub(crate) const LENGTH: usize = 8;
/// The length counts what is behind it.
pub(crate) const COUNTED_FROM: usize = 12;
pub(crate) const LEADER_EPOCH: usize = 12;
pub(crate) const MAGIC: usize = 16;
pub(crate) const CHECKSUM: usize = 17;
/// The checksum covers what is behind it.
pub(crate) const CHECKED_FROM: usize = 21;
pub(crate) const ATTRIBUTES: usize = 21;
pub(crate) const LAST_OFFSET_DELTA: usize = 23;
pub(crate) const BASE_TIMESTAMP: usize = 27;
pub(crate) const MAX_TIMESTAMP: usize = 35;
pub(crate) const PRODUCER_ID: usize = 43;
pub(crate) const PRODUCER_EPOCH: usize = 51;
pub(crate) const BASE_SEQUENCE: usize = 53;
pub(crate) const COUNT: usize = 57;
pub(crate) const RECORDS: usize = 61;

/// The message format since Kafka 0.11, and the only one since 4.0.
pub(crate) const FORMAT: u8 = 2;

/// The attribute of a batch that is part of a transaction.
pub(crate) const TRANSACTIONAL: i16 = 0x10;
