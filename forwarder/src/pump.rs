//! The thread that drives the stages: takes records, routes them, hands batches over, commits.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ofa_crds::ShardMap;
use rdkafka::consumer::CommitMode;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::commit::Tracker;
use crate::consume::{Chunk, Rebalance, Source, SourceError, Taken};
use crate::health::Health;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::publish::Confirmed;
use crate::route::{Encoder, Poison, Record};
use crate::shards::Shards;

/// How often watermarks are committed: what a crash repeats at most. A commit costs Kafka little.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// How often librdkafka's events are looked at while records flow, and how long to wait for a record or
/// a confirmation when there is none.
const TICK: Duration = Duration::from_millis(10);

/// How long partitions that the group takes away may need to be confirmed. Longer than a shard needs to
/// change over to another node, far shorter than the group waits.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// How often positions are told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What drives the stages.
pub(crate) struct Pump {
    pub(crate) source: Source,
    pub(crate) encoder: Encoder,
    pub(crate) shards: Shards,
    pub(crate) confirmed: Receiver<Confirmed>,
    pub(crate) maps: watch::Receiver<Option<Arc<ShardMap>>>,
    /// Epochs put in force, to be acknowledged.
    pub(crate) in_force: mpsc::UnboundedSender<u64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) stop: CancellationToken,
    pub(crate) state: State,
}

/// What changes while the pump runs.
pub(crate) struct State {
    tracker: Tracker,
    chunk: Chunk,
    /// The place in the chunk to go on at.
    at: usize,
    draining: Vec<Drain>,
    committed_at: Instant,
    reported_at: Instant,
    events_at: Instant,
    poison_log: LogLimit,
}

/// Partitions that are about to be let go.
struct Drain {
    partitions: Vec<i32>,
    deadline: Instant,
}

impl State {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            tracker: Tracker::default(),
            chunk: Chunk::new(),
            at: 0,
            draining: Vec::new(),
            committed_at: now,
            reported_at: now,
            events_at: now,
            poison_log: LogLimit::default(),
        }
    }
}

/// Whether the chunk could be worked off.
#[derive(PartialEq, Eq)]
enum Progress {
    Done,
    /// A shard has as much unconfirmed as it may.
    Blocked,
}

impl Pump {
    /// Runs until told to stop, or until Kafka's client can do nothing more.
    pub(crate) fn run(mut self) -> Result<(), SourceError> {
        self.source.subscribe()?;
        while !self.stop.is_cancelled() {
            self.step()?;
        }
        self.finish()
    }

    fn step(&mut self) -> Result<(), SourceError> {
        self.health.beat();
        self.take_confirmations();
        self.serve_group()?;
        self.take_new_map();
        if self.state.at >= self.state.chunk.len() {
            self.take_chunk();
        }
        let progress = self.route_chunk();
        self.commit_when_due()?;
        self.report_when_due();
        if progress == Progress::Blocked {
            self.wait_for_confirmation();
        }
        Ok(())
    }

    fn take_confirmations(&mut self) {
        while let Ok(confirmed) = self.confirmed.try_recv() {
            self.state.tracker.confirmed(&confirmed);
        }
    }

    fn wait_for_confirmation(&mut self) {
        if let Ok(confirmed) = self.confirmed.recv_timeout(TICK) {
            self.state.tracker.confirmed(&confirmed);
        }
    }

    /// Carries out what the group wants. Assignments wait until earlier partitions have been let go.
    fn serve_group(&mut self) -> Result<(), SourceError> {
        if self.state.events_at.elapsed() >= TICK {
            self.state.events_at = Instant::now();
            for rebalance in self.source.events()? {
                self.metrics.rebalanced();
                self.health.joined();
                self.on_rebalance(rebalance)?;
            }
        }
        self.finish_drains()
    }

    fn on_rebalance(&mut self, rebalance: Rebalance) -> Result<(), SourceError> {
        info!(?rebalance, "the group has changed");
        match rebalance {
            Rebalance::Assign(partitions) => {
                for &partition in &partitions {
                    self.state.tracker.assign(partition);
                }
                self.source.assign(&partitions)
            }
            Rebalance::Revoke(partitions) => {
                for &partition in &partitions {
                    self.state.tracker.drain(partition);
                }
                let deadline = Instant::now() + DRAIN_DEADLINE;
                self.state.draining.push(Drain {
                    partitions,
                    deadline,
                });
                Ok(())
            }
            Rebalance::Lost(partitions) => self.let_go(&partitions),
        }
    }

    /// Lets partitions go that are confirmed, or whose time is over; the others go on undisturbed.
    fn finish_drains(&mut self) -> Result<(), SourceError> {
        for drain in std::mem::take(&mut self.state.draining) {
            let confirmed = self.state.tracker.is_confirmed(&drain.partitions);
            if !confirmed && Instant::now() < drain.deadline {
                self.state.draining.push(drain);
                continue;
            }
            if !confirmed {
                warn!(partitions = ?drain.partitions, "handed over before everything was confirmed; the next forwarder sends the rest again");
            }
            self.commit(&drain.partitions, CommitMode::Sync);
            self.let_go(&drain.partitions)?;
        }
        Ok(())
    }

    fn let_go(&mut self, partitions: &[i32]) -> Result<(), SourceError> {
        for &partition in partitions {
            self.state.tracker.remove(partition);
            self.metrics.remove_partition(partition);
        }
        self.source.unassign(partitions)
    }

    fn take_new_map(&mut self) {
        if !self.maps.has_changed().unwrap_or(false) {
            return;
        }
        let map = self.maps.borrow_and_update().clone();
        if let Some(map) = map {
            let epoch = map.epoch();
            self.shards.set_map(map);
            // The receiver is gone only while the process stops.
            let _ = self.in_force.send(epoch);
        }
    }

    fn take_chunk(&mut self) {
        self.state.at = 0;
        self.source.fill(&mut self.state.chunk, TICK);
        if self.state.chunk.len() > 0 {
            self.encoder.set_now(now_ms());
        }
    }

    /// Routes the chunk's records until its end or until a shard is full, and hands all batches over.
    fn route_chunk(&mut self) -> Progress {
        let (mut progress, from) = (Progress::Done, self.state.at);
        while self.state.at < self.state.chunk.len() {
            if !self.route_next() {
                progress = Progress::Blocked;
                break;
            }
            self.state.at += 1;
        }
        self.metrics.consumed((self.state.at - from) as u64);
        for shard in 0..self.shards.len() {
            self.flush(shard);
        }
        progress
    }

    /// Routes one record; false when its shard is full and it has to wait.
    fn route_next(&mut self) -> bool {
        let state = &mut self.state;
        let record = match state.chunk.get(state.at) {
            Taken::Record(record) => record,
            Taken::Error { partition, error } => {
                self.metrics.kafka_error();
                warn!(
                    partition,
                    error, "Kafka's client reports a problem with a partition and goes on"
                );
                return true;
            }
        };
        // What is left of a partition on its way out will be read by its next owner.
        let Some(tenure) = state.tracker.tenure(record.partition) else {
            return true;
        };
        let result = self
            .encoder
            .route(&record, self.shards.map())
            .map(|routed| (routed.shard, routed));
        let ripe = match result {
            Ok((shard, _)) if self.shards.is_full(shard) => return false,
            Ok((shard, routed)) => {
                let (batch, max_payload) = self.shards.batch(shard);
                match self
                    .encoder
                    .encode(&record, &routed, tenure, max_payload, batch)
                {
                    Ok(()) => self.shards.is_ripe(shard).then_some(shard),
                    Err(poison) => pass_over(&record, poison, &self.metrics, &mut state.poison_log),
                }
            }
            Err(poison) => pass_over(&record, poison, &self.metrics, &mut state.poison_log),
        };
        state.tracker.taken(record.partition, record.offset);
        if let Some(shard) = ripe {
            self.flush(shard);
        }
        true
    }

    fn flush(&mut self, shard: usize) {
        let tracker = &mut self.state.tracker;
        self.shards.flush(shard, |sink, batch| {
            tracker.handed_over(sink, batch.spans());
        });
    }

    fn commit_when_due(&mut self) -> Result<(), SourceError> {
        if self.state.committed_at.elapsed() >= COMMIT_INTERVAL {
            self.state.committed_at = Instant::now();
            self.commit(&self.state.tracker.partitions(), CommitMode::Async);
        }
        Ok(())
    }

    /// Commits; a failure is said and made good by the next commit.
    fn commit(&mut self, partitions: &[i32], mode: CommitMode) {
        let offsets = self.state.tracker.uncommitted(partitions);
        if offsets.is_empty() {
            return;
        }
        match self.source.commit(&offsets, mode) {
            Ok(()) => self.state.tracker.note_committed(&offsets),
            Err(error) => {
                self.metrics.kafka_error();
                warn!(%error, "a commit failed; the next one includes its offsets");
            }
        }
    }

    fn report_when_due(&mut self) {
        if self.state.reported_at.elapsed() < REPORT_INTERVAL {
            return;
        }
        self.state.reported_at = Instant::now();
        for (partition, watermark) in self.state.tracker.watermarks() {
            self.metrics
                .set_position(partition, watermark, self.source.known_end(partition));
        }
        self.health.set_unreachable(&self.shards.unreachable());
    }

    /// Hands nothing more over, waits for what is on its way, commits and leaves the group.
    fn finish(mut self) -> Result<(), SourceError> {
        let partitions = self.state.tracker.partitions();
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while !self.state.tracker.is_confirmed(&partitions) && Instant::now() < deadline {
            self.wait_for_confirmation();
            // Still a member: events are served, so that the final commit is ours to make.
            for rebalance in self.source.events()? {
                self.on_rebalance(rebalance)?;
            }
        }
        self.commit(&self.state.tracker.partitions(), CommitMode::Sync);
        self.source.close();
        info!("everything confirmed is committed; leaving the group");
        Ok(())
    }
}

/// Counts and logs a record that cannot be forwarded.
fn pass_over(
    record: &Record<'_>,
    poison: Poison,
    metrics: &Metrics,
    log: &mut LogLimit,
) -> Option<usize> {
    metrics.poison(poison);
    if let Some(held_back) = log.allow() {
        let (partition, offset) = (record.partition, record.offset);
        warn!(partition, offset, reason = %poison, held_back, "a record cannot be forwarded and is passed over");
    }
    None
}

fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}
