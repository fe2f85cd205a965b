//! The pump's part that keeps the table as new as the records, and has the topics created that it names.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Pump, RETRY, TICK};
use crate::derive::DeriveError;
use crate::derive::map_reader::MapEvent;

/// How long a chunk that is not full waits before Kafka is asked for the map's end on its behalf.
const MAP_ASK: Duration = Duration::from_millis(10);

/// How long the map's reader may need to read what the map holds, over a new connection if need be, before what
/// is left is taken for the mark of a transaction. Asked for once for each such mark.
const MAP_TAIL: Duration = Duration::from_secs(10);

/// How long to wait for the map's next record before looking whether that was all.
const MAP_POLL: Duration = Duration::from_millis(1);

impl Pump {
    /// Takes in the whole map before the first record: an asset that is not there has no group.
    pub(super) fn read_map(&mut self) {
        self.health
            .pending("uns_map", "the UNS map is being read".to_owned());
        while !self.stop.is_cancelled() {
            self.health.beat();
            match self.map.next(TICK) {
                Some(MapEvent::CaughtUp) => break,
                Some(event) => self.on_map_event(event),
                None => {}
            }
        }
        self.health.settled("uns_map");
    }

    pub(super) fn follow_map(&mut self) {
        while let Some(event) = self.map.next(Duration::ZERO) {
            self.on_map_event(event);
        }
    }

    /// Takes in everything that the map holds by now. A record of an asset that is not in the table may be
    /// newer than what has been read of the map, so that passing it over would lose it.
    pub(super) fn catch_up_with_map(&mut self) -> Result<(), DeriveError> {
        // Records of unregistered assets that come one by one share the question to Kafka.
        std::thread::sleep(self.map_asked_at_most_every());
        let asked = Instant::now();
        let mut ends = None;
        while !self.stop.is_cancelled() {
            self.health.beat();
            match &ends {
                None => ends = self.ask_ends(),
                Some(ends) if self.map.has_read(ends) => break,
                Some(ends) if asked.elapsed() >= MAP_TAIL => {
                    // Not records, but the marks of a transaction stand at the end.
                    for &(partition, end) in ends {
                        self.map.note_read(partition, end);
                    }
                }
                Some(_) => {}
            }
            if let Some(event) = self.map.next(MAP_POLL) {
                self.on_map_event(event);
            }
        }
        while !self.stop.is_cancelled() && !self.ensure_topics()? {
            std::thread::sleep(RETRY);
        }
        Ok(())
    }

    fn map_asked_at_most_every(&self) -> Duration {
        if self.state.chunk.is_full() {
            Duration::ZERO
        } else {
            MAP_ASK
        }
    }

    fn ask_ends(&mut self) -> Option<Vec<(i32, i64)>> {
        match self.map.ends() {
            Ok(ends) => {
                self.health.settled("uns_map");
                Some(ends)
            }
            Err(error) => {
                let why = format!("the UNS map's end is not known: {error}");
                warn!("{why}; trying on");
                self.health.pending("uns_map", why);
                std::thread::sleep(RETRY);
                None
            }
        }
    }

    fn on_map_event(&mut self, event: MapEvent) {
        match event {
            MapEvent::Entry { asset, entry, .. } => {
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
            MapEvent::Unreadable { .. } => {
                self.derived.unreadable_map_records.inc();
            }
            MapEvent::Unavailable(why) => {
                warn!("{why}; trying on");
                self.health.pending("uns_map", why);
            }
            MapEvent::CaughtUp => {}
        }
    }

    /// Takes in to which groups' topics other members have written assets before they left partitions to this one.
    pub(super) fn read_changelog(&mut self) -> Result<(), DeriveError> {
        // What is not committed yet is newer than what stands there.
        self.commit()?;
        while !self.stop.is_cancelled() {
            self.health.beat();
            if self.ensure_topics()? {
                let (table, health) = (&mut self.table, &self.health);
                let take = |asset: &str, group| {
                    let group = table.id_of(group);
                    table.note_written(asset, Some(group));
                };
                match self.changelog.read(&self.stop, || health.beat(), take) {
                    Ok(()) => {
                        self.health.settled("changelog");
                        return Ok(());
                    }
                    Err(error) => {
                        let why = format!("the changelog cannot be read: {error}");
                        warn!("{why}; trying on");
                        self.health.pending("changelog", why);
                    }
                }
            }
            std::thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Makes sure that all groups have their topics. While one is missing nothing is read: its records
    /// could not be written, and passing them over would lose them.
    pub(super) fn ensure_topics(&mut self) -> Result<bool, DeriveError> {
        if self.topics.are_ready() {
            return Ok(true);
        }
        // Creating topics can take longer than a transaction may stay open.
        self.commit()?;
        if let Err(error) = self.topics.ensure(&self.table, &mut self.writer) {
            self.metrics.kafka_error();
            let why = format!(
                "derived topics cannot be created: {error}; allow this program to create, write and read the topics asset_stream_*"
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
}
