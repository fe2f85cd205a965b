//! Stage 2, route: which shard a record goes to, and the bytes that go there. Pure.

mod frame;
mod poison;
mod prev_offsets;

use ofa_crds::cursor::MOVED_FROM_HEADER;
use ofa_crds::names::asset_of_key;
use ofa_crds::payload::{Edited, Stamp};
use ofa_crds::{KeyHash, ShardMap};

pub(crate) use frame::Framer;
pub use ofa_crds::payload::PayloadFormat;
pub(crate) use ofa_crds::payload::{Timestamp, TimestampKind};
pub use poison::Poison;
pub(crate) use prev_offsets::Tenure;

use crate::publish::Batch;
use prev_offsets::PrevOffsets;

/// A record as it came from Kafka, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// With an asset's first record in a group's topic, the topic of the group before.
    pub(crate) moved_from: Option<&'a str>,
}

/// Turns records into NATS frames. Its buffers are kept, so that a record costs no allocation.
pub(crate) struct Encoder {
    format: PayloadFormat,
    stamp: Stamp,
    framer: Framer,
    prev_offsets: PrevOffsets,
}

impl Encoder {
    pub(crate) fn new(topic: &str, format: PayloadFormat) -> Self {
        Self {
            format,
            stamp: Stamp::default(),
            framer: Framer::new(topic),
            prev_offsets: PrevOffsets::new(),
        }
    }

    /// Sets the time that the records of the next chunk are stamped with.
    pub(crate) fn set_now(&mut self, now_ms: i64) {
        self.stamp.set_now(now_ms);
    }

    /// Tells whose records come next.
    pub(crate) fn look_ahead(&self, keys: &[KeyHash]) {
        self.prev_offsets.fetch(keys.iter().map(|key| key.0));
    }

    /// The shard a record goes to, or why it goes nowhere. `hash` is that of its key.
    #[inline]
    pub(crate) fn route<'a>(
        &self,
        record: &Record<'a>,
        hash: KeyHash,
        map: &ShardMap,
    ) -> Result<Routed<'a>, Poison> {
        let asset = asset_of_key(record.key)?;
        let value = record.value.ok_or(Poison::Tombstone)?;
        let event = Edited::new(value, self.format)?;
        Ok(Routed {
            shard: map.index_of(hash),
            second: map.second_index_of(hash),
            hash,
            asset,
            event,
        })
    }

    /// Appends a routed record to its shard's batch, unless the shard's nodes would refuse it.
    pub(crate) fn encode(
        &mut self,
        record: &Record<'_>,
        routed: &Routed<'_>,
        tenure: Tenure,
        max_payload: usize,
        batch: &mut Batch,
    ) -> Result<(), Poison> {
        let payload = routed.event.size(&mut self.stamp, record.timestamp);
        self.framer.set_subject(routed.asset, &routed.event.id);
        if let Some(topic) = record.moved_from {
            self.framer.add_header(MOVED_FROM_HEADER, topic);
        }
        if self.framer.largest_size(payload) > max_payload {
            return Err(Poison::TooLarge);
        }
        let prev = self
            .prev_offsets
            .replace(routed.hash.0, tenure, record.offset);
        let out = batch.buffer();
        let size = self
            .framer
            .push_head(out, record.partition, record.offset, prev, payload);
        routed.event.push(out, &mut self.stamp, record.timestamp);
        out.extend_from_slice(b"\r\n");
        batch.note(record.partition, tenure, record.offset, size);
        Ok(())
    }
}

/// A record on its way to a shard.
pub(crate) struct Routed<'a> {
    /// Index of the shard in the map.
    pub(crate) shard: usize,
    /// Index of the other shard that has to get the record while owners change.
    pub(crate) second: Option<usize>,
    hash: KeyHash,
    asset: &'a str,
    event: Edited<'a>,
}
