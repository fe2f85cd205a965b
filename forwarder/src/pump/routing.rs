//! Records from the main reader to their shards.

use std::time::Duration;

use tracing::warn;

use ofa_crds::kafka::now_ms;

use super::{Pump, State, TICK};
use crate::commit::Tracker;
use crate::consume::Taken;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::route::{Encoder, Poison, Record, Routed, Tenure};
use crate::shards::{Room, Shards};

/// Records after which batches are handed over although more records wait: each costs its shard a write and a marker.
pub(super) const BURST: usize = 2000;

/// Whether the chunk could be worked off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// A shard has as much unconfirmed as it may.
    Blocked,
}

impl Pump<'_> {
    /// Takes chunks and routes their records, for as long as more are there and shards have room; then hands all batches over.
    pub(super) fn take_and_route(&mut self) -> Progress {
        let (mut progress, mut routed) = (Progress::Done, 0);
        loop {
            if self.state.at >= self.state.chunk.len() {
                self.take_chunk(routed == 0);
            }
            let from = self.state.at;
            while progress == Progress::Done && self.state.at < self.state.chunk.len() {
                progress = self.route_next();
            }
            routed += self.state.at - from;
            let more_waits = progress == Progress::Done && self.state.chunk.is_full();
            if !more_waits || routed >= BURST {
                break;
            }
        }
        self.metrics.consumed(routed as u64);
        self.flush_all();
        progress
    }

    fn take_chunk(&mut self, may_wait: bool) {
        self.state.at = 0;
        let wait = if may_wait && self.state.catch_up.is_none() {
            TICK
        } else {
            Duration::ZERO
        };
        // Often, whether there is something to take or not: what brokers send comes to a halt while nobody reads it.
        self.reactor.turn(wait, self.source.ready());
        self.source.fill(&mut self.state.chunk);
        self.encoder.set_now(now_ms());
        self.encoder.look_ahead(self.state.chunk.hash_keys());
    }

    /// Routes the record at hand, unless a shard it goes to is full.
    fn route_next(&mut self) -> Progress {
        let Self {
            encoder,
            shards,
            dead_letters,
            metrics,
            state,
            ..
        } = self;
        let State {
            tracker,
            chunk,
            at,
            poison_log,
            ..
        } = state;
        let taken = chunk.get(*at);
        let record = match &taken {
            Taken::Record(record) => record,
            Taken::Error { partition, error } => {
                metrics.kafka_error();
                warn!(
                    partition,
                    error, "Kafka's client reports a problem with a partition and goes on"
                );
                *at += 1;
                return Progress::Done;
            }
        };
        let hash = chunk.hash(*at);
        *at += 1;
        // What is left of a partition on its way out will be read by its next owner.
        let Some(tenure) = tracker.tenure(record.partition) else {
            return Progress::Done;
        };
        let result = match encoder.route(record, hash, shards.map()) {
            Ok(routed) => match targets(shards, tracker, record, &routed) {
                Some(targets) => deliver(encoder, shards, record, &routed, tenure, targets),
                None => {
                    *at -= 1;
                    return Progress::Blocked;
                }
            },
            Err(poison) => Err(poison),
        };
        if let (Err(poison), Some(letters)) = (&result, dead_letters) {
            if letters.is_full() {
                *at -= 1;
                return Progress::Blocked;
            }
            let (sink, span) = letters.send(record, tenure, *poison);
            tracker.handed_over(sink, &[span]);
        }
        tracker.taken(record.partition, record.offset);
        match result {
            Ok(Some(ripe)) => self.flush(ripe),
            Ok(None) => {}
            Err(poison) => pass_over(record, poison, metrics, poison_log),
        }
        Progress::Done
    }

    pub(super) fn flush_all(&mut self) {
        for shard in 0..self.shards.len() {
            self.flush(shard);
        }
    }

    pub(super) fn flush(&mut self, shard: usize) {
        let tracker = &mut self.state.tracker;
        self.shards.flush(shard, |sink, batch| {
            tracker.handed_over(sink, batch.spans());
        });
    }
}

/// The shards to hand a record to now; `None` when one of them is full. An isolated one is noted as behind.
fn targets(
    shards: &mut Shards,
    tracker: &mut Tracker,
    record: &Record<'_>,
    routed: &Routed<'_>,
) -> Option<[Option<usize>; 2]> {
    let wanted = [Some(routed.shard), routed.second];
    let rooms = wanted.map(|shard| shard.map(|shard| shards.room(shard)));
    if rooms.contains(&Some(Room::Full)) {
        return None;
    }
    let mut targets = wanted;
    for (target, room) in targets.iter_mut().zip(rooms) {
        if let (Some(shard), Some(Room::Isolated)) = (*target, room) {
            tracker.fall_behind(record.partition, shards.sink(shard), record.offset);
            *target = None;
        }
    }
    Some(targets)
}

/// Puts a record into the batches of its shards; returns a shard whose batch is large enough to go.
fn deliver(
    encoder: &mut Encoder,
    shards: &mut Shards,
    record: &Record<'_>,
    routed: &Routed<'_>,
    tenure: Tenure,
    targets: [Option<usize>; 2],
) -> Result<Option<usize>, Poison> {
    let (Some(first), second) = (targets[0].or(targets[1]), targets[0].and(targets[1])) else {
        return Ok(None);
    };
    let (batch, max_payload) = shards.batch(first);
    encoder.encode(record, routed, tenure, max_payload, batch)?;
    if let Some(second) = second {
        shards.copy_last(first, second, record.partition, tenure, record.offset);
    }
    let ripe = |shard: &usize| shards.is_ripe(*shard);
    Ok(Some(first).filter(ripe).or(second.filter(ripe)))
}

/// Counts and logs a record that cannot be forwarded.
pub(super) fn pass_over(
    record: &Record<'_>,
    poison: Poison,
    metrics: &Metrics,
    log: &mut LogLimit,
) {
    metrics.poison(poison);
    if let Some(held_back) = log.allow() {
        let (partition, offset) = (record.partition, record.offset);
        warn!(partition, offset, reason = %poison, held_back, "a record cannot be forwarded and is passed over");
    }
}
