//! An event as memory and Kafka hold it: edited only when it is sent.

use std::sync::Arc;

use bytes::Bytes;
use ofa_crds::KeyHash;
use ofa_crds::payload::{Timestamp, TimestampKind};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::origin;

/// One record of an asset. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Offset in its partition.
    pub(super) offset: u64,
    /// Kafka's timestamp.
    pub(super) timestamp: Timestamp,
    /// The asset's hash, as shard maps have it.
    pub(super) hash: KeyHash,
    /// The asset's UUID.
    pub(super) asset: Arc<str>,
    /// The Kafka value.
    pub(super) value: Bytes,
    /// The topic of the group that the asset was in before, with its first record since.
    pub(super) moved_from: Option<Arc<str>>,
}

/// What a record costs in memory beside its key and value: the record, its place in the ring and in the index, and
/// what the allocator adds to two allocations.
const OVERHEAD: usize = 208;

impl Record {
    /// Copies a record; `None` for what belongs to no asset or has no value.
    #[must_use]
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        let asset = ofa_crds::names::asset_of_key(message.key()).ok()?;
        let (ms, kind) = match message.timestamp() {
            rdkafka::Timestamp::CreateTime(ms) => (ms, TimestampKind::Producer),
            rdkafka::Timestamp::LogAppendTime(ms) => (ms, TimestampKind::Broker),
            rdkafka::Timestamp::NotAvailable => (0, TimestampKind::Unknown),
        };
        Some(Self {
            offset: u64::try_from(message.offset()).ok()?,
            timestamp: Timestamp { ms, kind },
            hash: KeyHash::of(asset.as_bytes()),
            asset: asset.into(),
            value: Bytes::copy_from_slice(message.payload()?),
            moved_from: origin::moved_from(message),
        })
    }

    /// Bytes in memory.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        self.asset.len() + self.value.len() + OVERHEAD
    }
}

#[cfg(test)]
impl Record {
    pub(super) fn for_test(offset: u64, asset: &str) -> Self {
        Self {
            offset,
            timestamp: Timestamp {
                ms: 0,
                kind: TimestampKind::Unknown,
            },
            hash: KeyHash::of(asset.as_bytes()),
            asset: asset.into(),
            value: Bytes::from(format!(r#"{{"id":"x","v":{offset}}}"#)),
            moved_from: None,
        }
    }
}
