//! The thread that drives the stages: takes records, routes them, hands batches over, commits.

mod catch_up;
mod group;
mod reactor;
mod routing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::ShardMap;
use rdkafka::consumer::CommitMode;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::commit::{CommittedPosition, Tracker};
use crate::consume::{Chunk, Source, SourceError};
use crate::dead_letters::DeadLetters;
use crate::health::Health;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::publish::{Confirmed, SinkId};
use crate::route::Encoder;
use crate::shards::Shards;
use catch_up::CatchUp;
use group::Drain;
pub(crate) use reactor::Reactor;
use routing::Progress;

/// How often watermarks are committed: what a crash repeats at most. A commit costs Kafka little.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// How often every position is committed, changed or not: librdkafka forgets commits that wait for an answer while the
/// group changes, without a word, and a partition with nothing new would stay behind.
const RECOMMIT_INTERVAL: Duration = Duration::from_secs(10);

/// How often librdkafka's events are looked at while records flow, and how long to wait for a record or
/// a confirmation when there is none.
const TICK: Duration = Duration::from_millis(10);

/// How long partitions that the group takes away may need to be confirmed. Longer than a shard needs to
/// change over to another node, far shorter than the group waits.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// How often positions are told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What drives the stages.
pub(crate) struct Pump<'a> {
    pub(crate) reactor: &'a Reactor,
    pub(crate) source: Source,
    pub(crate) state: State,
    pub(crate) encoder: Encoder,
    pub(crate) shards: Shards,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) confirmed: mpsc::UnboundedReceiver<Confirmed>,
    pub(crate) maps: watch::Receiver<Option<Arc<ShardMap>>>,
    /// Epochs put in force, to be acknowledged.
    pub(crate) in_force: mpsc::UnboundedSender<u64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) stop: CancellationToken,
}

/// What changes while the pump runs.
pub(crate) struct State {
    tracker: Tracker,
    chunk: Chunk,
    /// The place in the chunk to go on at.
    at: usize,
    draining: Vec<Drain>,
    catch_up: Option<CatchUp>,
    /// Sinks of shards that have left the map with something on the way, and until when they may confirm it.
    leaving: Vec<(SinkId, Instant)>,
    committed_at: Instant,
    recommitted_at: Instant,
    reported_at: Instant,
    events_at: Instant,
    poison_log: LogLimit,
}

impl State {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            tracker: Tracker::default(),
            chunk: Chunk::new(),
            at: 0,
            draining: Vec::new(),
            catch_up: None,
            leaving: Vec::new(),
            committed_at: now,
            recommitted_at: now,
            reported_at: now,
            events_at: now,
            poison_log: LogLimit::default(),
        }
    }
}

impl Pump<'_> {
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
        self.serve_group()?;
        self.take_confirmations();
        self.take_new_map();
        self.catch_up()?;
        let progress = self.take_and_route();
        self.commit_when_due();
        self.report_when_due();
        if progress == Progress::Blocked {
            self.wait_for_confirmation();
        }
        Ok(())
    }

    fn take_confirmations(&mut self) {
        while let Ok(confirmed) = self.confirmed.try_recv() {
            self.on_confirmed(&confirmed);
        }
    }

    fn wait_for_confirmation(&mut self) {
        let confirmed = self.reactor.turn(TICK, self.confirmed.recv());
        if let Some(confirmed) = confirmed.flatten() {
            self.on_confirmed(&confirmed);
        }
    }

    fn on_confirmed(&mut self, confirmed: &Confirmed) {
        self.state.tracker.confirmed(confirmed);
        self.shards.note_progress(confirmed.sink);
    }

    /// Puts a new map in force. What shards of the old one have not got, the new owners are to get: where
    /// something was held back for a shard, or one leaves without confirming, the topic is read again.
    fn take_new_map(&mut self) {
        if self.maps.has_changed().unwrap_or(false) {
            let map = self.maps.borrow_and_update().clone();
            if let Some(map) = map {
                self.set_map(map);
            }
        }
        let now = Instant::now();
        let tracker = &self.state.tracker;
        self.state
            .leaving
            .retain(|(sink, _)| tracker.is_on_the_way(*sink));
        if self
            .state
            .leaving
            .iter()
            .any(|(_, deadline)| *deadline < now)
        {
            warn!(
                "a shard left the map without confirming everything; the rest goes to the new owners"
            );
            self.rewind();
        }
    }

    fn set_map(&mut self, map: Arc<ShardMap>) {
        let epoch = map.epoch();
        let gone = self.shards.set_map(map);
        let deadline = Instant::now() + DRAIN_DEADLINE;
        self.state
            .leaving
            .extend(gone.into_iter().map(|sink| (sink, deadline)));
        if self.state.tracker.any_behind() {
            self.rewind();
        }
        // The receiver is gone only while the process stops.
        let _ = self.in_force.send(epoch);
    }

    /// Begins anew at the watermarks: shards may get events twice, none is passed over.
    fn rewind(&mut self) {
        let watermarks: Vec<(i32, i64)> = self.state.tracker.watermarks().collect();
        info!(?watermarks, "reading again");
        for &(partition, _) in &watermarks {
            self.state.tracker.assign(partition);
        }
        self.state.leaving.clear();
        self.state.catch_up = None;
        for shard in 0..self.shards.len() {
            self.shards.rejoin(shard);
        }
        // What is left of the chunk will come again, and has to come after what goes before it.
        self.state.at = self.state.chunk.len();
        self.source.rewind(&watermarks);
    }

    fn commit_when_due(&mut self) {
        if self.state.committed_at.elapsed() >= COMMIT_INTERVAL {
            self.state.committed_at = Instant::now();
            if self.state.recommitted_at.elapsed() >= RECOMMIT_INTERVAL {
                self.state.recommitted_at = Instant::now();
                self.state.tracker.forget_committed();
            }
            let positions = self
                .state
                .tracker
                .uncommitted(&self.state.tracker.partitions());
            self.commit(positions, CommitMode::Async);
        }
    }

    /// Commits for good what will be another's: what was handed to Kafka's client before may still fail there.
    fn commit_finally(&mut self, partitions: &[i32]) -> bool {
        self.commit(self.state.tracker.positions(partitions), CommitMode::Sync)
    }

    /// Commits; a failure is said and made good by the next commit.
    fn commit(&mut self, positions: Vec<(i32, CommittedPosition)>, mode: CommitMode) -> bool {
        if positions.is_empty() {
            return true;
        }
        let shards = &self.shards;
        let offsets: Vec<(i32, i64, String)> = positions
            .iter()
            .map(|(id, position)| {
                (
                    *id,
                    position.offset,
                    position.metadata(|sink| shards.name_of(sink)),
                )
            })
            .collect();
        let source = &self.source;
        let committed = match mode {
            CommitMode::Async => source.commit(&offsets, mode),
            CommitMode::Sync => self.reactor.while_blocked(|| source.commit(&offsets, mode)),
        };
        match committed {
            Ok(()) => {
                self.state.tracker.note_committed(positions);
                true
            }
            Err(error) => {
                self.metrics.kafka_error();
                warn!(%error, "a commit failed; the next one includes its offsets");
                false
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
            self.serve_group()?;
        }
        while !self.commit_finally(&self.state.tracker.partitions()) && Instant::now() < deadline {
            std::thread::sleep(TICK);
            self.serve_group()?;
        }
        self.source.close();
        info!("everything confirmed is committed; leaving the group");
        Ok(())
    }
}
