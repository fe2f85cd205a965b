//! The pump's part that derives the records of a chunk.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ofa_crds::cursor::{MOVED_FROM_HEADER, SOURCE_HEADER};
use tracing::warn;

use super::Pump;
use crate::consume::Taken;
use crate::derive::DeriveError;
use crate::derive::route::{Joined, Routed, route};
use crate::derive::table::JoinTable;
use crate::derive::writer::WriteError;
use crate::fetch::EncodedHeaders;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::produce::{NewRecord, Remedy, StepError};
use crate::route::{Poison, Record, TimestampKind};

impl Pump {
    pub(super) fn derive_chunk(&mut self) -> Result<(), DeriveError> {
        let derived = self.derive_all();
        // At once: to count each would have the processor wait, every time, until all that it writes has reached memory.
        let written = std::mem::take(&mut self.state.chunk_written);
        self.derived.written.inc_by(written);
        derived
    }

    fn derive_all(&mut self) -> Result<(), DeriveError> {
        let (mut at, mut map_is_new) = (0, false);
        while at < self.state.chunk.len() {
            match self.derive_next(at, map_is_new) {
                Ok(true) => at += 1,
                Ok(false) => {
                    let aborts = self.state.aborts;
                    self.catch_up_with_map()?;
                    if self.state.aborts != aborts {
                        return self.give_up_from(at);
                    }
                    if self.stop.is_cancelled() {
                        break;
                    }
                    map_is_new = true;
                }
                Err(error) => {
                    self.note_untaken(at);
                    return self.recover(error);
                }
            }
        }
        self.metrics.consumed(at as u64);
        Ok(())
    }

    /// Reads the chunk's records from a place on again, with all that was given up before them.
    fn give_up_from(&mut self, at: usize) -> Result<(), DeriveError> {
        self.note_untaken(at);
        self.give_up()
    }

    /// What the chunk still holds is to be read again with what is given up: the client's own position is
    /// behind it already.
    fn note_untaken(&mut self, at: usize) {
        let state = &mut self.state;
        for at in at..state.chunk.len() {
            if let Taken::Record(record) = state.chunk.get(at)
                && state.assigned.contains(&record.partition)
            {
                state.positions.taken(record.partition, record.offset);
            }
        }
    }

    /// Derives one record; false when the map has to be as new as the record first.
    fn derive_next(&mut self, at: usize, map_is_new: bool) -> Result<bool, WriteError> {
        let state = &mut self.state;
        let taken = state.chunk.get(at);
        let record = match &taken {
            Taken::Record(record) => record,
            Taken::Error { partition, error } => {
                self.metrics.kafka_error();
                warn!(
                    partition,
                    error, "Kafka's client reports a problem with a partition and goes on"
                );
                return Ok(true);
            }
        };
        if !state.assigned.contains(&record.partition) {
            return Ok(true);
        }
        match route(record, &self.table, self.format, &mut state.buffer) {
            Ok(Joined::Unknown) if !map_is_new => return Ok(false),
            Ok(Joined::Unknown | Joined::Nowhere) => {
                self.derived.unmatched.inc();
            }
            Err(poison) => pass_over(record, poison, &self.metrics, &mut state.log),
            Ok(Joined::To(routed)) => {
                if !self.writer.is_open() {
                    self.writer.begin();
                    (state.written, state.since) = (0, Instant::now());
                    state.touched.begin();
                }
                let is_new = routed.last != Some(routed.group);
                let before = routed.last.filter(|_| is_new);
                let name = |group| self.topics.name(&self.table, group);
                let before = before.map(name).filter(|it| *it != name(routed.group));
                let source = source_of(&self.topic, record, &mut state.cursor);
                let moved_from = before.as_deref().map(moved_from);
                let further = [source, moved_from.unwrap_or_default()];
                let topic = self.topics.get(routed.group).ok_or_else(gone)?;
                let partition = topic.partition_of(record.partition);
                let derived = NewRecord {
                    key: routed.asset.as_bytes(),
                    value: routed.value,
                    timestamp_ms: timestamp(record),
                    headers: state.chunk.headers(at),
                    further: &further[..1 + usize::from(moved_from.is_some())],
                };
                self.writer.append((topic, partition), &derived)?;
                if is_new {
                    let changelog = self.topics.changelog().ok_or_else(gone)?;
                    let entry = changelog_entry(&routed, &self.table);
                    self.writer.append((changelog, 0), &entry)?;
                    let group = Some(routed.group);
                    let before = self.table.note_written(routed.asset, group);
                    state.moved.push((routed.asset.into(), before));
                }
                state.touched.mark(routed.group.index(), partition);
                state.written += 1;
                state.chunk_written += 1;
            }
        }
        state.positions.taken(record.partition, record.offset);
        Ok(true)
    }
}

/// Every group in the table has its topic, since `ensure_topics` comes first.
fn gone() -> WriteError {
    WriteError::Abort(StepError::new(Remedy::Abort, "a group has no topic"))
}

/// Which group's topic has the asset's last record now.
fn changelog_entry<'a>(routed: &Routed<'a>, table: &'a JoinTable) -> NewRecord<'a> {
    NewRecord {
        key: routed.asset.as_bytes(),
        value: table.name(routed.group).as_str().as_bytes(),
        timestamp_ms: now_ms(),
        headers: EncodedHeaders::default(),
        further: &[],
    }
}

/// The source's, so that a derived record has the time of its event; now where the source has none.
fn timestamp(record: &Record<'_>) -> i64 {
    match record.timestamp.kind {
        TimestampKind::Unknown => now_ms(),
        TimestampKind::Producer | TimestampKind::Broker => record.timestamp.ms,
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// The header with the record's own place, made in `buffer`.
fn source_of<'a>(
    topic: &str,
    record: &Record<'_>,
    buffer: &'a mut Vec<u8>,
) -> (&'static [u8], &'a [u8]) {
    buffer.clear();
    buffer.extend_from_slice(topic.as_bytes());
    buffer.push(b'/');
    buffer.extend_from_slice(itoa::Buffer::new().format(record.partition).as_bytes());
    buffer.push(b'/');
    buffer.extend_from_slice(itoa::Buffer::new().format(record.offset).as_bytes());
    (SOURCE_HEADER.as_bytes(), buffer)
}

/// The header of an asset's first record in another group.
fn moved_from(topic: &str) -> (&'static [u8], &[u8]) {
    (MOVED_FROM_HEADER.as_bytes(), topic.as_bytes())
}

/// Counts and logs a record that cannot be derived.
fn pass_over(record: &Record<'_>, poison: Poison, metrics: &Metrics, log: &mut LogLimit) {
    metrics.poison(poison);
    if let Some(held_back) = log.allow() {
        let (partition, offset) = (record.partition, record.offset);
        warn!(partition, offset, reason = %poison, held_back, "a record cannot be derived and is passed over");
    }
}
