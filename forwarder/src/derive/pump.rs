//! The thread that derives: takes records, joins them, writes them, commits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::DeriveError;
use super::enqueue::Outgoing;
use super::group_topics::GroupTopics;
use super::map_reader::MapEvent;
use super::metrics::{DeriveMetrics, Outcome};
use super::output::Format;
use super::positions::Positions;
use super::route::route;
use super::table::JoinTable;
use super::writer::{WriteError, Writer};
use crate::consume::{Chunk, Rebalance, Source, Taken};
use crate::health::Health;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::route::{Poison, Record, TimestampKind};

/// How long to wait for a record, and how often the group's events are looked at.
const TICK: Duration = Duration::from_millis(10);

/// Most records of a transaction, and its longest time while more keep coming: a commit costs the brokers a
/// marker in each partition written to, and what is aborted has to be read again.
const MAX_RECORDS: u64 = 200_000;
const MAX_AGE: Duration = Duration::from_millis(1000);

/// How often offsets are committed while nothing is written, since no asset read has a group.
const IDLE_COMMIT: Duration = Duration::from_secs(1);

/// How long to wait after something failed before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How long to wait for room in librdkafka's queue.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// How often positions are told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What drives the deriving of streams.
pub(crate) struct Pump {
    pub(crate) source: Source,
    pub(crate) map: Receiver<MapEvent>,
    pub(crate) table: JoinTable,
    pub(crate) topics: GroupTopics,
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
    buffer: Vec<u8>,
    /// Records in the open transaction, and since when it is open or the last one was committed.
    written: u64,
    since: Instant,
    /// How long the last commit took.
    commit_took: Duration,
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
            buffer: Vec::with_capacity(4096),
            written: 0,
            since: now,
            commit_took: Duration::ZERO,
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
        self.source
            .fill(&mut self.state.chunk, TICK.min(self.commit_interval));
        if let Err(error) = self.derive_chunk() {
            self.recover(error)?;
        }
        self.commit_when_due()?;
        self.report_when_due();
        Ok(())
    }

    /// Takes in the whole map before the first record: an asset that is not there has no group.
    fn read_map(&mut self) {
        self.health
            .pending("uns_map", "the UNS map is being read".to_owned());
        while !self.stop.is_cancelled() {
            self.health.beat();
            match self.map.recv_timeout(TICK) {
                Ok(MapEvent::CaughtUp) => break,
                Ok(event) => self.on_map_event(event),
                Err(_) => {}
            }
        }
        self.health.settled("uns_map");
    }

    fn follow_map(&mut self) {
        while let Ok(event) = self.map.try_recv() {
            self.on_map_event(event);
        }
    }

    fn on_map_event(&mut self, event: MapEvent) {
        match event {
            MapEvent::Entry { asset, entry } => {
                let applied = self.table.apply(&asset, entry.as_ref());
                if let Some(group) = applied.appeared {
                    info!(group = %self.table.name(group), "a group has its first asset");
                    self.topics.want(group);
                }
                if let Some(group) = applied.emptied {
                    info!(group = %self.table.name(group), "a group has lost its last asset; its topic stays");
                }
                if let Some(reason) = applied.refused {
                    warn!(asset, %reason, "an asset cannot be put into a group");
                    self.derived.unreadable_map_records.inc();
                }
            }
            MapEvent::Unreadable => {
                self.derived.unreadable_map_records.inc();
            }
            MapEvent::Unavailable(why) => {
                warn!("{why}; trying on");
                self.health.pending("uns_map", why);
            }
            MapEvent::CaughtUp => {}
        }
    }

    /// Makes sure that all groups have their topics. While one is missing nothing is read: its records
    /// could not be written, and passing them over would lose them.
    fn ensure_topics(&mut self) -> Result<bool, DeriveError> {
        if self.topics.are_ready() {
            return Ok(true);
        }
        // Creating topics can take longer than a transaction may stay open.
        self.commit()?;
        if let Err(error) = self.topics.ensure(&self.table, self.writer.producer()) {
            self.metrics.kafka_error();
            let why = format!(
                "derived topics cannot be created: {error}; allow this program to create and write the topics asset_stream_*"
            );
            if let Some(held_back) = self.state.log.allow() {
                warn!(held_back, "{why}");
            }
            self.health.pending("topics", why);
            return Ok(false);
        }
        self.health.settled("topics");
        Ok(true)
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
        Ok(())
    }

    fn on_rebalance(&mut self, rebalance: Rebalance) -> Result<(), DeriveError> {
        info!(?rebalance, "the group has changed");
        match rebalance {
            Rebalance::Assign(partitions) => {
                // Makes a start at the end of the topic last over a restart.
                while let Err(error) = self.source.committed(&partitions) {
                    self.health.beat();
                    warn!(%error, "waiting for the positions another member has left; trying on");
                }
                let starts: Vec<(i32, Option<i64>)> = partitions
                    .iter()
                    .map(|&partition| (partition, None))
                    .collect();
                self.source.assign(&starts)?;
                self.state.assigned.extend(partitions);
            }
            Rebalance::Revoke(partitions) => {
                self.commit()?;
                self.let_go(&partitions)?;
            }
            Rebalance::Lost(partitions) => {
                self.let_go(&partitions)?;
                self.give_up()?;
            }
        }
        Ok(())
    }

    fn let_go(&mut self, partitions: &[i32]) -> Result<(), DeriveError> {
        for partition in partitions {
            self.state.assigned.remove(partition);
            self.state.positions.remove(*partition);
            self.metrics.remove_partition(*partition);
        }
        Ok(self.source.unassign(partitions)?)
    }

    fn derive_chunk(&mut self) -> Result<(), WriteError> {
        let mut taken = 0;
        let mut result = Ok(());
        for at in 0..self.state.chunk.len() {
            result = self.derive_next(at);
            if result.is_err() {
                break;
            }
            taken += 1;
        }
        self.metrics.consumed(taken);
        result
    }

    fn derive_next(&mut self, at: usize) -> Result<(), WriteError> {
        let state = &mut self.state;
        let record = match state.chunk.get(at) {
            Taken::Record(record) => record,
            Taken::Error { partition, error } => {
                self.metrics.kafka_error();
                warn!(
                    partition,
                    error, "Kafka's client reports a problem with a partition and goes on"
                );
                return Ok(());
            }
        };
        if !state.assigned.contains(&record.partition) {
            return Ok(());
        }
        match route(&record, &self.table, self.format, &mut state.buffer) {
            Ok(None) => {
                self.derived.unmatched.inc();
            }
            Err(poison) => pass_over(&record, poison, &self.metrics, &mut state.log),
            Ok(Some(routed)) => {
                let outgoing = Outgoing {
                    partition: record.partition,
                    key: routed.key,
                    value: routed.value,
                    timestamp_ms: timestamp(&record),
                };
                if !self.writer.is_open() {
                    self.writer.begin()?;
                    (state.written, state.since) = (0, Instant::now());
                }
                // Every group in the table has its topic, since `ensure_topics` comes first.
                let gone = WriteError::Abort(KafkaError::MessageProduction(
                    RDKafkaErrorCode::UnknownTopic,
                ));
                let topic = self.topics.get(routed.group).ok_or(gone)?;
                let mut headers = state.chunk.headers(at);
                while let Err(code) = topic.enqueue(&outgoing, &mut headers) {
                    if let Some(error) = self.writer.judge(code) {
                        return Err(error);
                    }
                    std::thread::sleep(FULL_WAIT);
                }
                state.written += 1;
                self.derived.written.inc();
            }
        }
        state.positions.taken(record.partition, record.offset);
        Ok(())
    }

    fn commit_when_due(&mut self) -> Result<(), DeriveError> {
        let age = self.state.since.elapsed();
        let more_comes = self.state.chunk.is_full();
        // A commit that takes long, with many groups say, is not followed by the next at once.
        let interval = self.commit_interval.max(self.state.commit_took);
        let due = if self.writer.is_open() {
            self.state.written >= MAX_RECORDS || age >= MAX_AGE || (age >= interval && !more_comes)
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
        let Some((offsets, group)) = self.source.offsets_for_transaction(&offsets)? else {
            warn!("the group has taken all partitions away; what was read of them is given up");
            return self.give_up();
        };
        match self.writer.commit(&offsets, &group) {
            Ok(()) => {
                self.state.commit_took = self.state.since.elapsed();
                self.state.positions.committed();
                self.derived.transaction(Outcome::Committed);
                Ok(())
            }
            Err(error) => self.recover(error),
        }
    }

    fn recover(&mut self, error: WriteError) -> Result<(), DeriveError> {
        let WriteError::Abort(reason) = error else {
            return Err(error.into());
        };
        warn!(%reason, "a transaction is aborted; its records are read again");
        self.metrics.kafka_error();
        self.give_up()?;
        // Perhaps a topic was removed under us.
        for group in self.table.groups() {
            self.topics.want(group);
        }
        std::thread::sleep(RETRY);
        Ok(())
    }

    /// Aborts the open transaction and goes back to where it began.
    fn give_up(&mut self) -> Result<(), DeriveError> {
        self.writer.abort()?;
        self.derived.transaction(Outcome::Aborted);
        let back = self.state.positions.rewind();
        if !back.is_empty() {
            self.source.rewind(&back)?;
        }
        Ok(())
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

/// The source's, so that a derived record has the time of its event; now where the source has none.
fn timestamp(record: &Record<'_>) -> i64 {
    match record.timestamp.kind {
        TimestampKind::Unknown => 0,
        TimestampKind::Producer | TimestampKind::Broker => record.timestamp.ms,
    }
}

/// Counts and logs a record that cannot be derived.
fn pass_over(record: &Record<'_>, poison: Poison, metrics: &Metrics, log: &mut LogLimit) {
    metrics.poison(poison);
    if let Some(held_back) = log.allow() {
        let (partition, offset) = (record.partition, record.offset);
        warn!(partition, offset, reason = %poison, held_back, "a record cannot be derived and is passed over");
    }
}
