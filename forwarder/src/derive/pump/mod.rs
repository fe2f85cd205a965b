//! The thread that derives: takes records, joins them, writes them, commits.

mod chunk;
mod map;
mod touched;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::DeriveError;
use super::changelog::Changelog;
use super::group_topics::GroupTopics;
use super::map_reader::MapFollower;
use super::metrics::{DeriveMetrics, Outcome};
use super::output::Format;
use super::positions::Positions;
use super::table::{GroupId, JoinTable};
use super::writer::{WriteError, Writer};
use crate::consume::{Chunk, Rebalance, Source};
use crate::health::Health;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use touched::Touched;

/// How long to wait for a record, and how often the group's events are looked at.
const TICK: Duration = Duration::from_millis(10);

/// Most records of a transaction, and its longest time while more keep coming: a commit costs the brokers a
/// marker in each partition written to, and what is aborted has to be read again.
const MAX_RECORDS: u64 = 200_000;
const MAX_AGE: Duration = Duration::from_millis(1000);

/// Time between two commits for each partition written to. A marker costs a broker some tenth of a millisecond of CPU
/// time, so that all of them together cost a tenth of a core at most, however many groups there are: with a thousand
/// partitions that have events all the time, readers see them within a second.
const PACE: Duration = Duration::from_millis(1);

/// The longest time that events wait for their commit, however many partitions: well within the shortest time-out of a transaction
/// that can be set.
const MAX_PACE: Duration = Duration::from_secs(10);

/// How often offsets are committed while nothing is written, since no asset read has a group.
const IDLE_COMMIT: Duration = Duration::from_secs(1);

/// How long to wait after something failed before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How often positions are told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What drives the deriving of streams.
pub(crate) struct Pump {
    pub(crate) runtime: Handle,
    pub(crate) source: Source,
    /// The topic that is read.
    pub(crate) topic: String,
    pub(crate) map: MapFollower,
    pub(crate) table: JoinTable,
    pub(crate) topics: GroupTopics,
    pub(crate) changelog: Changelog,
    pub(crate) writer: Writer,
    pub(crate) format: Format,
    pub(crate) commit_interval: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) derived: Arc<DeriveMetrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) stop: CancellationToken,
    pub(crate) state: State,
}

/// What changes while the pump runs.
pub(crate) struct State {
    chunk: Chunk,
    positions: Positions,
    assigned: BTreeSet<i32>,
    /// Partitions that the group has taken away, and when each is let go.
    leaving: Vec<(Instant, Vec<i32>)>,
    buffer: Vec<u8>,
    cursor: Vec<u8>,
    /// Records in the open transaction, and since when it is open or the last one was committed.
    written: u64,
    since: Instant,
    /// Records written of the chunk at hand.
    chunk_written: u64,
    /// Partitions that the open transaction has written to.
    touched: Touched,
    /// Assets that the open transaction has written to another group than before, and which that was.
    moved: Vec<(Box<str>, Option<GroupId>)>,
    /// How long the last commit took.
    commit_took: Duration,
    /// Transactions given up so far.
    aborts: u64,
    events_at: Instant,
    reported_at: Instant,
    log: LogLimit,
}

impl State {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            chunk: Chunk::new(),
            positions: Positions::default(),
            assigned: BTreeSet::new(),
            leaving: Vec::new(),
            buffer: Vec::with_capacity(4096),
            cursor: Vec::with_capacity(256),
            written: 0,
            chunk_written: 0,
            touched: Touched::default(),
            moved: Vec::new(),
            since: now,
            commit_took: Duration::ZERO,
            aborts: 0,
            events_at: now,
            reported_at: now,
            log: LogLimit::default(),
        }
    }
}

impl Pump {
    /// Runs until told to stop, or until Kafka's client can do nothing more.
    pub(crate) fn run(mut self) -> Result<(), DeriveError> {
        self.read_map();
        self.writer.take_over()?;
        self.source.subscribe()?;
        while !self.stop.is_cancelled() {
            self.step()?;
        }
        self.commit()?;
        self.source.close();
        info!("everything written is committed; leaving the group");
        Ok(())
    }

    fn step(&mut self) -> Result<(), DeriveError> {
        self.health.beat();
        self.follow_map();
        self.serve_group()?;
        if !self.ensure_topics()? {
            std::thread::sleep(RETRY);
            return Ok(());
        }
        let wait = TICK.min(self.commit_interval);
        // In time or not: what is there is taken.
        let _ = self
            .runtime
            .block_on(async { timeout(wait, self.source.ready()).await });
        self.source.fill(&mut self.state.chunk);
        self.derive_chunk()?;
        self.commit_when_due()?;
        self.report_when_due();
        Ok(())
    }

    fn serve_group(&mut self) -> Result<(), DeriveError> {
        if self.state.events_at.elapsed() >= TICK {
            self.state.events_at = Instant::now();
            for rebalance in self.source.events()? {
                self.metrics.rebalanced();
                self.health.joined();
                self.on_rebalance(rebalance)?;
            }
        }
        self.finish_leaving()
    }

    fn on_rebalance(&mut self, rebalance: Rebalance) -> Result<(), DeriveError> {
        info!(?rebalance, "the group has changed");
        match rebalance {
            Rebalance::Assign(partitions) => {
                let Some(committed) = self.committed(&partitions) else {
                    return Ok(());
                };
                self.read_changelog()?;
                self.source.assign(&committed)?;
                self.state.assigned.extend(partitions);
            }
            Rebalance::Revoke(partitions) => {
                // A commit comes first, and others wait for it.
                let time = self.source.time_to_let_go();
                let due = Instant::now() + time.saturating_sub(self.state.commit_took);
                self.state.leaving.push((due, partitions));
            }
            Rebalance::Lost(partitions) => {
                self.let_go(&partitions)?;
                self.give_up()?;
            }
        }
        Ok(())
    }

    /// Lets go what the group has taken away, once it is time to.
    fn finish_leaving(&mut self) -> Result<(), DeriveError> {
        let now = Instant::now();
        let due: Vec<_> = self
            .state
            .leaving
            .extract_if(.., |(due, _)| *due <= now)
            .collect();
        for (_, partitions) in due {
            self.commit()?;
            self.let_go(&partitions)?;
        }
        Ok(())
    }

    /// The position that is committed for each partition, where there is one. `None` when it is time to stop before Kafka tells.
    fn committed(&self, partitions: &[i32]) -> Option<Vec<(i32, Option<i64>)>> {
        loop {
            self.health.beat();
            match self.source.committed(partitions) {
                Ok(committed) => {
                    let committed = committed.iter().map(|it| (it.partition, it.offset));
                    return Some(committed.collect());
                }
                Err(_) if self.stop.is_cancelled() => return None,
                Err(error) => {
                    warn!(%error, "waiting for the positions another transaction has left; trying on");
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    fn let_go(&mut self, partitions: &[i32]) -> Result<(), DeriveError> {
        for partition in partitions {
            self.state.assigned.remove(partition);
            self.state.positions.remove(*partition);
            self.metrics.remove_partition(*partition);
        }
        Ok(self.source.unassign(partitions)?)
    }

    fn commit_when_due(&mut self) -> Result<(), DeriveError> {
        let age = self.state.since.elapsed();
        let more_comes = self.state.chunk.is_full();
        let due = if self.writer.is_open() {
            // A commit that takes long is not followed by the next at once.
            let pace = self.state.touched.pace().max(self.state.commit_took);
            let interval = self.commit_interval.max(pace.min(MAX_PACE));
            self.state.written >= MAX_RECORDS
                || (age >= interval && (age >= MAX_AGE || !more_comes))
        } else {
            age >= IDLE_COMMIT
        };
        if due { self.commit() } else { Ok(()) }
    }

    /// Commits what was written together with how far the source was read.
    fn commit(&mut self) -> Result<(), DeriveError> {
        self.state.since = Instant::now();
        let offsets = self.state.positions.uncommitted();
        if offsets.is_empty() && !self.writer.is_open() {
            return Ok(());
        }
        let Some(consumed) = self.source.consumed(offsets) else {
            warn!("the group has taken all partitions away; what was read of them is given up");
            return self.give_up();
        };
        match self.writer.commit(consumed) {
            Ok(()) => {
                self.state.commit_took = self.state.since.elapsed();
                self.note_committed();
                Ok(())
            }
            Err(error) => self.recover(error),
        }
    }

    fn note_committed(&mut self) {
        self.state.positions.committed();
        self.state.moved.clear();
        self.derived.transaction(Outcome::Committed);
    }

    fn recover(&mut self, error: WriteError) -> Result<(), DeriveError> {
        let (WriteError::Abort(reason) | WriteError::Replace(reason)) = error else {
            return Err(error.into());
        };
        warn!(%reason, "a transaction is aborted; its records are read again");
        self.metrics.kafka_error();
        self.give_up()?;
        // Perhaps a topic was removed under us.
        self.topics.want_all(&self.table);
        std::thread::sleep(RETRY);
        Ok(())
    }

    /// Aborts the open transaction and goes back to where it began, unless it turns out to be committed.
    fn give_up(&mut self) -> Result<(), DeriveError> {
        self.state.aborts += 1;
        match self.writer.abort() {
            Err(WriteError::Replace(reason)) => {
                warn!(%reason, "Kafka has ended a transaction, perhaps since it took too long; a new producer goes on");
                self.writer.replace()?;
            }
            aborted => aborted?,
        }
        // A commit may have been carried out without our hearing of it.
        let uncommitted = self.state.positions.uncommitted();
        let partitions: Vec<i32> = uncommitted.iter().map(|&(it, _)| it).collect();
        let committed = self.committed(&partitions);
        if committed.is_some_and(|now| self.state.positions.are_committed(&now)) {
            self.note_committed();
        } else {
            self.go_back();
        }
        Ok(())
    }

    fn go_back(&mut self) {
        while let Some((asset, before)) = self.state.moved.pop() {
            self.table.note_written(&asset, before);
        }
        self.derived.transaction(Outcome::Aborted);
        let back = self.state.positions.rewind();
        if !back.is_empty() {
            self.source.rewind(&back);
        }
    }

    fn report_when_due(&mut self) {
        if self.state.reported_at.elapsed() < REPORT_INTERVAL {
            return;
        }
        self.state.reported_at = Instant::now();
        for (partition, watermark) in self.state.positions.watermarks() {
            self.metrics
                .set_position(partition, watermark, self.source.known_end(partition));
        }
        self.derived.groups.set(self.table.groups().count() as u64);
        self.derived.assets.set(self.table.assets() as u64);
    }
}
