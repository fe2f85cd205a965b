//! Shards that were away get what they missed, while the others go on.
//!
//! One shard at a time: a second reader goes over the partitions from where the shard fell behind and
//! hands over only what belongs to it. Where it reaches what the main reader has taken, the shard is
//! handed records as they are taken again. Both readers run on the pump's thread, so nothing can slip
//! between them.

use std::collections::BTreeMap;
use std::time::Duration;

use ofa_crds::KeyHash;
use tracing::{info, warn};

use super::routing::BURST;
use super::{Pump, State};
use crate::consume::{Chunk, RangeReader, SourceError, Taken};
use crate::route::{Encoder, Record, Tenure};
use crate::shards::Shards;

/// Chunks that a shard behind is given for each burst of the main reader, twice as many as a burst has: it has to be faster than
/// the head moves, even at full speed.
const CHUNKS: usize = 2 * BURST.div_ceil(Chunk::MOST);

/// A shard on its way back.
pub(super) struct CatchUp {
    shard: usize,
    chunk: Chunk,
    reader: RangeReader,
    at: usize,
    /// Partitions that are read for it, under the tenure they had when reading began.
    partitions: BTreeMap<i32, Tenure>,
}

impl Pump<'_> {
    /// Goes on with the shard that is catching up, or begins with one that can.
    pub(super) fn catch_up(&mut self) -> Result<(), SourceError> {
        if self.state.catch_up.is_none() {
            self.begin_catch_up()?;
        }
        for _ in 0..CHUNKS {
            let Some(mut catch_up) = self.state.catch_up.take() else {
                return Ok(());
            };
            self.reactor.turn(Duration::ZERO, catch_up.reader.ready());
            let more = self.hand_over_missed(&mut catch_up);
            self.flush(catch_up.shard);
            self.note_caught_up(&mut catch_up);
            if catch_up.partitions.is_empty() {
                return Ok(());
            }
            self.state.catch_up = Some(catch_up);
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn begin_catch_up(&mut self) -> Result<(), SourceError> {
        let Some(shard) = self.shards.ready_to_catch_up() else {
            return Ok(());
        };
        let behind = self.state.tracker.behind(self.shards.sink(shard));
        if behind.is_empty() {
            self.shards.rejoin(shard);
            return Ok(());
        }
        let starts: Vec<(i32, i64)> = behind
            .iter()
            .map(|&(partition, _, offset)| (partition, offset))
            .collect();
        info!(?starts, "a shard is back and catches up");
        let reader = self.source.range_reader(&starts)?;
        let partitions = behind
            .into_iter()
            .map(|(partition, tenure, _)| (partition, tenure))
            .collect();
        self.state.catch_up = Some(CatchUp {
            shard,
            chunk: Chunk::new(),
            reader,
            at: 0,
            partitions,
        });
        Ok(())
    }

    /// Hands over a chunk of what the shard missed; false when there is nothing now, or no room for it.
    fn hand_over_missed(&mut self, catch_up: &mut CatchUp) -> bool {
        let Self {
            encoder,
            shards,
            state,
            ..
        } = self;
        let State { tracker, .. } = state;
        let CatchUp {
            shard,
            reader,
            chunk,
            at,
            partitions,
        } = catch_up;
        let sink = shards.sink(*shard);
        if *at >= chunk.len() {
            reader.fill(chunk);
            encoder.look_ahead(chunk.hash_keys());
            *at = 0;
        }
        let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
        while *at < chunk.len() && shards.has_room(*shard) {
            match &chunk.get(*at) {
                Taken::Record(record) => {
                    let tenure = partitions.get(&record.partition).copied();
                    let ours =
                        tenure.filter(|tenure| tracker.tenure(record.partition) == Some(*tenure));
                    if let Some(tenure) = ours {
                        let missed = tracker
                            .next(record.partition)
                            .is_some_and(|next| record.offset < next);
                        if missed {
                            hand_over(encoder, shards, *shard, (record, chunk.hash(*at)), tenure);
                        }
                        reached.insert(record.partition, record.offset + i64::from(missed));
                    }
                }
                Taken::Error { partition, error } => {
                    warn!(
                        partition,
                        error,
                        "Kafka's client reports a problem while a shard catches up, and goes on"
                    );
                }
            }
            *at += 1;
        }
        let progressed = !reached.is_empty();
        self.flush(*shard);
        for (partition, offset) in reached {
            if self.state.tracker.catch_up(partition, sink, offset) {
                partitions.remove(&partition);
            }
        }
        progressed
    }

    /// Ends the catch-up of partitions that are no longer read, and of the shard when none is left.
    fn note_caught_up(&mut self, catch_up: &mut CatchUp) {
        let tracker = &self.state.tracker;
        catch_up
            .partitions
            .retain(|partition, tenure| tracker.tenure(*partition) == Some(*tenure));
        if catch_up.partitions.is_empty()
            && tracker.behind(self.shards.sink(catch_up.shard)).is_empty()
        {
            self.shards.rejoin(catch_up.shard);
        }
    }
}

/// Puts a record into the shard's batch if it belongs there.
fn hand_over(
    encoder: &mut Encoder,
    shards: &mut Shards,
    shard: usize,
    (record, hash): (&Record<'_>, KeyHash),
    tenure: Tenure,
) {
    // What cannot be forwarded was counted and logged by the main reader.
    if let Ok(routed) = encoder.route(record, hash, shards.map())
        && (routed.shard == shard || routed.second == Some(shard))
    {
        let (batch, max_payload) = shards.batch(shard);
        let _ = encoder.encode(record, &routed, tenure, max_payload, batch);
    }
}
