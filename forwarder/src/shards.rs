//! The shards of the map in force, each with its task; and those of earlier maps until they are empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::shard_map::MapNotice;
use ofa_crds::{HandoverPhase, ShardMap};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::credentials::Credentials;
use crate::metrics::Metrics;
use crate::publish::{self, Batch, Confirmed, Notices, ShardHandle, ShardSettings, SinkId};
use crate::route::Tenure;

/// Bytes a shard may have unconfirmed before no more are handed to it. At full speed this is about 10 ms
/// of work; memory is bounded by it.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// Bytes gathered for one shard before they are handed over without waiting for the end of the chunk.
const BATCH_BYTES: usize = 512 * 1024;

/// How long a full shard may confirm nothing before the others go on without it. A healthy shard takes
/// milliseconds, on an overloaded machine some hundreds of them; within a minute's outage a wait of this
/// length stays below the others' 99th percentile.
const ISOLATE_AFTER: Duration = Duration::from_millis(400);

/// How tasks of shards are made.
pub(crate) struct ShardFactory {
    /// The ForwarderPool whose clients are told of new maps; `None` for a map from the environment, which stays.
    pub(crate) pool: Option<String>,
    pub(crate) member: String,
    pub(crate) credentials: Credentials,
    pub(crate) confirmed: UnboundedSender<Confirmed>,
    pub(crate) metrics: Arc<Metrics>,
}

/// One shard of the map in force.
struct Slot {
    handle: ShardHandle,
    /// What is being gathered for it.
    batch: Batch,
    /// When it last confirmed something, or was handed something while nothing was on its way.
    progress: Instant,
    /// Whether the others go on without it.
    isolated: bool,
}

/// The map in force and its shards, by the map's own index.
pub(crate) struct Shards {
    factory: ShardFactory,
    map: Arc<ShardMap>,
    slots: Vec<Slot>,
    sinks: u32,
    /// What clients of all shards are told of the map; `None` where it sends them nowhere else.
    notice: watch::Sender<Option<MapNotice>>,
}

/// Whether a shard can be handed a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// It has as much unconfirmed as it may.
    Full,
    /// The others go on without it; it catches up later.
    Isolated,
}

impl Shards {
    pub(crate) fn new(factory: ShardFactory, map: Arc<ShardMap>) -> Self {
        let mut shards = Self {
            factory,
            map: map.clone(),
            slots: Vec::new(),
            sinks: 0,
            notice: watch::Sender::default(),
        };
        shards.set_map(map);
        shards
    }

    pub(crate) fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }

    /// Puts another map in force. To be called with no batch begun. Shards that stay keep their task; the
    /// task of one that goes ends when everything it was handed is confirmed. Returns the sinks that go.
    pub(crate) fn set_map(&mut self, map: Arc<ShardMap>) -> Vec<SinkId> {
        let mut old: Vec<Slot> = std::mem::take(&mut self.slots);
        for shard in map.shards() {
            let name = shard.name.as_str();
            let slot = match old.iter().position(|slot| slot.handle.name == name) {
                Some(at) => old.swap_remove(at),
                None => self.spawn(name, &shard.urls),
            };
            slot.handle.set_urls(&shard.urls);
            self.slots.push(slot);
        }
        for gone in &old {
            self.factory.metrics.remove_cluster(&gone.handle.name);
        }
        self.factory.metrics.set_epoch(map.epoch());
        info!(epoch = map.epoch(), shards = map.shards().len(), handover = ?map.handover(), "shard map in force");
        self.notice.send_replace(self.notice_of(&map));
        self.map = map;
        old.iter().map(|slot| slot.handle.sink).collect()
    }

    /// Whether a shard can be handed a record. One that is full and makes no progress is isolated here.
    pub(crate) fn room(&mut self, shard: usize) -> Room {
        let slot = &mut self.slots[shard];
        if slot.isolated {
            return Room::Isolated;
        }
        if slot.handle.in_flight() + slot.batch.frames().len() <= WINDOW_BYTES {
            return Room::Free;
        }
        // Where no shard gets on, the machine is slow and not a shard gone: reading twice would make it worse.
        if slot.progress.elapsed() < ISOLATE_AFTER || !self.others_get_on(shard) {
            return Room::Full;
        }
        self.isolate(shard);
        Room::Isolated
    }

    fn others_get_on(&self, shard: usize) -> bool {
        let gets_on =
            |slot: &Slot| slot.handle.in_flight() == 0 || slot.progress.elapsed() < ISOLATE_AFTER;
        let mut others = self
            .slots
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != shard);
        others.any(|(_, slot)| !slot.isolated && gets_on(slot))
    }

    /// Lets the others go on without a shard.
    pub(crate) fn isolate(&mut self, shard: usize) {
        let slot = &mut self.slots[shard];
        if std::mem::replace(&mut slot.isolated, true) {
            return;
        }
        self.factory.metrics.set_isolated(&slot.handle.name, true);
        warn!(
            cluster = slot.handle.name,
            "the shard confirms nothing; the others go on, and it catches up when it is back"
        );
    }

    /// A shard has caught up and is handed records as they are taken again.
    pub(crate) fn rejoin(&mut self, shard: usize) {
        let slot = &mut self.slots[shard];
        slot.isolated = false;
        slot.progress = Instant::now();
        self.factory.metrics.set_isolated(&slot.handle.name, false);
        info!(cluster = slot.handle.name, "the shard has caught up");
    }

    /// Isolated shards that can be reached and have confirmed all they were handed.
    pub(crate) fn ready_to_catch_up(&self) -> Option<usize> {
        let ready = |slot: &Slot| {
            slot.isolated && slot.handle.is_connected() && slot.handle.in_flight() == 0
        };
        self.slots.iter().position(ready)
    }

    /// Whether a shard that catches up can be handed more.
    pub(crate) fn has_room(&self, shard: usize) -> bool {
        let slot = &self.slots[shard];
        slot.handle.in_flight() + slot.batch.frames().len() <= WINDOW_BYTES
    }

    /// A sink has confirmed something.
    pub(crate) fn note_progress(&mut self, sink: SinkId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.handle.sink == sink) {
            slot.progress = Instant::now();
        }
    }

    /// The batch that a shard's next frame goes into, and the largest message the shard takes.
    pub(crate) fn batch(&mut self, shard: usize) -> (&mut Batch, usize) {
        let slot = &mut self.slots[shard];
        (&mut slot.batch, slot.handle.max_payload())
    }

    /// Puts the last frame gathered for one shard into another's batch too.
    pub(crate) fn copy_last(
        &mut self,
        from: usize,
        to: usize,
        partition: i32,
        tenure: Tenure,
        offset: i64,
    ) {
        if let Ok([from, to]) = self.slots.get_disjoint_mut([from, to]) {
            to.batch.copy_last(&from.batch, partition, tenure, offset);
        }
    }

    /// Whether a shard's batch has gathered enough to be handed over at once.
    pub(crate) fn is_ripe(&self, shard: usize) -> bool {
        self.slots[shard].batch.frames().len() >= BATCH_BYTES
    }

    /// Hands a shard's batch over; `note` is told first.
    pub(crate) fn flush(&mut self, shard: usize, note: impl FnOnce(SinkId, &Batch)) {
        let slot = &mut self.slots[shard];
        if slot.batch.is_empty() {
            return;
        }
        if slot.handle.in_flight() == 0 {
            slot.progress = Instant::now();
        }
        let batch = std::mem::replace(&mut slot.batch, slot.handle.new_batch());
        note(slot.handle.sink, &batch);
        slot.handle.send(batch);
    }

    /// Number of shards.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The sink of a shard.
    pub(crate) fn sink(&self, shard: usize) -> SinkId {
        self.slots[shard].handle.sink
    }

    /// The index of the shard of this name.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.handle.name == name)
    }

    /// The name of a sink's shard.
    pub(crate) fn name_of(&self, sink: SinkId) -> Option<String> {
        self.slots
            .iter()
            .find(|slot| slot.handle.sink == sink)
            .map(|slot| slot.handle.name.clone())
    }

    /// Names of the shards that cannot be reached now.
    pub(crate) fn unreachable(&self) -> Vec<String> {
        let gone = self.slots.iter().filter(|slot| !slot.handle.is_connected());
        gone.map(|slot| slot.handle.name.clone()).collect()
    }

    /// What clients are told when this map comes into force, and again while they are to move.
    fn notice_of(&self, map: &ShardMap) -> Option<MapNotice> {
        let notice = MapNotice::of(map);
        let moves = map.handover() == Some(HandoverPhase::Announce)
            || notice.assignment != self.map.assignment();
        moves.then_some(notice)
    }

    fn notices(&self) -> Option<Notices> {
        let pool = self.factory.pool.as_deref()?;
        Some(Notices::new(pool, self.notice.subscribe()))
    }

    fn spawn(&mut self, name: &str, urls: &[String]) -> Slot {
        let sink = SinkId(self.sinks);
        self.sinks += 1;
        let settings = ShardSettings {
            sink,
            name: name.to_owned(),
            urls: urls.to_vec(),
            access: self.factory.credentials.of(name),
            member: self.factory.member.clone(),
            notices: self.notices(),
        };
        let handle = publish::spawn(
            settings,
            self.factory.confirmed.clone(),
            self.factory.metrics.clone(),
        );
        let batch = handle.new_batch();
        Slot {
            handle,
            batch,
            progress: Instant::now(),
            isolated: false,
        }
    }
}
