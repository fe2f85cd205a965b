//! The shards of the map in force, each with its task; and those of earlier maps until they are empty.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use ofa_crds::ShardMap;
use tracing::info;

use crate::metrics::Metrics;
use crate::publish::{self, Access, Batch, Confirmed, ShardHandle, ShardSettings, SinkId};

/// Bytes a shard may have unconfirmed before no more are handed to it. At full speed this is about 10 ms
/// of work; memory is bounded by it.
pub(crate) const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// Bytes gathered for one shard before they are handed over without waiting for the end of the chunk.
const BATCH_BYTES: usize = 512 * 1024;

/// How tasks of shards are made.
pub(crate) struct ShardFactory {
    pub(crate) member: String,
    /// Folder with one folder of credentials for each shard.
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) confirmed: Sender<Confirmed>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The map in force and its shards, by the map's own index.
pub(crate) struct Shards {
    factory: ShardFactory,
    map: Arc<ShardMap>,
    handles: Vec<ShardHandle>,
    batches: Vec<Batch>,
    sinks: u32,
}

impl Shards {
    pub(crate) fn new(factory: ShardFactory, map: Arc<ShardMap>) -> Self {
        let mut shards = Self {
            factory,
            map: map.clone(),
            handles: Vec::new(),
            batches: Vec::new(),
            sinks: 0,
        };
        shards.set_map(map);
        shards
    }

    pub(crate) fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }

    /// Puts another map in force. To be called with no batch begun. Shards that stay keep their task; the
    /// task of one that goes ends when everything it was handed is confirmed.
    pub(crate) fn set_map(&mut self, map: Arc<ShardMap>) {
        let mut old: Vec<ShardHandle> = std::mem::take(&mut self.handles);
        for shard in map.shards() {
            let name = shard.name.as_str();
            let handle = match old.iter().position(|handle| handle.name == name) {
                Some(at) => old.swap_remove(at),
                None => self.spawn(name, &shard.urls),
            };
            handle.set_urls(&shard.urls);
            self.handles.push(handle);
        }
        for gone in old {
            self.factory.metrics.remove_cluster(&gone.name);
        }
        self.batches = self.handles.iter().map(ShardHandle::new_batch).collect();
        self.factory.metrics.set_epoch(map.epoch());
        info!(
            epoch = map.epoch(),
            shards = map.shards().len(),
            "shard map in force"
        );
        self.map = map;
    }

    /// The batch that a shard's next frame goes into, and the largest message the shard takes.
    pub(crate) fn batch(&mut self, shard: usize) -> (&mut Batch, usize) {
        (&mut self.batches[shard], self.handles[shard].max_payload())
    }

    /// Whether a shard has more unconfirmed than it may.
    pub(crate) fn is_full(&self, shard: usize) -> bool {
        self.handles[shard].in_flight() + self.batches[shard].frames().len() > WINDOW_BYTES
    }

    /// Whether a shard's batch has gathered enough to be handed over at once.
    pub(crate) fn is_ripe(&self, shard: usize) -> bool {
        self.batches[shard].frames().len() >= BATCH_BYTES
    }

    /// Hands a shard's batch over; `note` is told first.
    pub(crate) fn flush(&mut self, shard: usize, note: impl FnOnce(SinkId, &Batch)) {
        if self.batches[shard].is_empty() {
            return;
        }
        let fresh = self.handles[shard].new_batch();
        let batch = std::mem::replace(&mut self.batches[shard], fresh);
        note(self.handles[shard].sink, &batch);
        self.handles[shard].send(batch);
    }

    /// Number of shards.
    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Names of the shards that cannot be reached now.
    pub(crate) fn unreachable(&self) -> Vec<String> {
        let gone = self.handles.iter().filter(|handle| !handle.is_connected());
        gone.map(|handle| handle.name.clone()).collect()
    }

    fn spawn(&mut self, name: &str, urls: &[String]) -> ShardHandle {
        let sink = SinkId(self.sinks);
        self.sinks += 1;
        let settings = ShardSettings {
            sink,
            name: name.to_owned(),
            urls: urls.to_vec(),
            access: Access {
                folder: self
                    .factory
                    .credentials
                    .as_ref()
                    .map(|folder| folder.join(name)),
            },
            member: self.factory.member.clone(),
        };
        publish::spawn(
            settings,
            self.factory.confirmed.clone(),
            self.factory.metrics.clone(),
        )
    }
}
