//! The store: a table of items, and how far the stream is in it.
//!
//! A disk that is busy may take seconds to make something safe, and whoever reads the stream must not wait for it. So
//! what is new is in memory first, where questions find it, and a thread of its own writes it from time to time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, Table, TableDefinition};
use thiserror::Error;
use tracing::debug;

use super::item::{Change, Item};
use super::unwritten::{Batch, Key, Unwritten};

/// Items by (asset, id), as JSON.
const ITEMS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("items");

/// Next offset by (topic, partition).
const POSITIONS: TableDefinition<'_, (&str, u32), u64> = TableDefinition::new("positions");

/// The store's file in its folder.
const FILE: &str = "state.redb";

/// How much may have to be read again after a crash: a transaction that waits for the disk costs milliseconds,
/// so not every batch of events has one.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The folder cannot be made.
    #[error(
        "the folder {path} for the state cannot be created: {source}; choose another STATE_DIR"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error(
        "the state in {path} cannot be opened: {source}; give each instance a STATE_DIR of its own, or empty this one to have it rebuilt"
    )]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: redb::DatabaseError,
    },
    /// The state is not kept here.
    #[error("ksqlDB, which keeps the state, cannot be asked; look at the service's log")]
    KsqlDb,
    /// The store failed.
    #[error("the state store failed: {0}; check the disk of STATE_DIR")]
    Store(#[from] redb::Error),
    /// An item is not as it was written.
    #[error("an item of the state store is unreadable ({0}); empty STATE_DIR to have it rebuilt")]
    Item(#[from] serde_json::Error),
}

/// The state of one topic's assets.
pub struct StateStore {
    database: Database,
    topic: String,
    unwritten: Mutex<Unwritten>,
    /// Held by the one who writes.
    writing: Mutex<()>,
    /// Why the thread that writes cannot.
    failure: Mutex<Option<StateError>>,
}

impl StateStore {
    /// Opens or creates the store in a folder; without one it is in memory and has to be rebuilt at each start.
    ///
    /// # Errors
    /// When the folder is unusable or another process has it.
    pub fn open(folder: Option<&Path>, topic: &str) -> Result<Self, StateError> {
        let database = match folder {
            None => Database::builder().create_with_backend(InMemoryBackend::new()),
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|source| StateError::Folder {
                    path: path.to_owned(),
                    source,
                })?;
                Database::create(path.join(FILE))
            }
        };
        let path = folder.map_or_else(|| PathBuf::from("memory"), Path::to_owned);
        let database = database.map_err(|source| StateError::Open { path, source })?;
        Self::of(database, topic)
    }

    fn of(database: Database, topic: &str) -> Result<Self, StateError> {
        let store = Self {
            database,
            topic: topic.to_owned(),
            unwritten: Mutex::default(),
            writing: Mutex::default(),
            failure: Mutex::default(),
        };
        // So that the tables are there.
        store.write(|_, _| Ok(()))?;
        Ok(store)
    }

    /// Writes from time to time, on a thread that ends with the store.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn write_in_background(self: &Arc<Self>) -> std::io::Result<()> {
        let store = Arc::downgrade(self);
        let run = move || {
            while let Some(store) = store.upgrade() {
                if let Err(error) = store.sync() {
                    debug!(%error, "the state cannot be written");
                    *store.failure.lock() = Some(error);
                    return;
                }
                drop(store);
                std::thread::sleep(WRITE_INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("state".to_owned());
        thread.spawn(run).map(drop)
    }

    /// The next offset of each partition that is safe in the store.
    ///
    /// # Errors
    /// When the store fails.
    pub fn positions(&self) -> Result<BTreeMap<u32, u64>, StateError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(POSITIONS).map_err(redb::Error::from)?;
        let of_topic = (self.topic.as_str(), 0)..=(self.topic.as_str(), u32::MAX);
        let mut positions = BTreeMap::new();
        for entry in table.range(of_topic).map_err(redb::Error::from)? {
            let (key, next) = entry.map_err(redb::Error::from)?;
            positions.insert(key.value().1, next.value());
        }
        Ok(positions)
    }

    /// Forgets everything: the topic is another than before.
    ///
    /// # Errors
    /// When the store fails.
    pub fn clear(&self) -> Result<(), StateError> {
        let _alone = self.writing.lock();
        *self.unwritten.lock() = Unwritten::default();
        self.write(|items, positions| {
            items.retain(|_, _| false)?;
            positions.retain(|_, _| false)?;
            Ok(())
        })
    }

    /// Takes in events, in their order, and the positions after them. Waits for no disk.
    ///
    /// # Errors
    /// When the store fails, or has failed since the last call.
    pub fn apply(
        &self,
        changes: Vec<Change>,
        next: impl IntoIterator<Item = (u32, u64)>,
    ) -> Result<(), StateError> {
        if let Some(failure) = self.failure.lock().take() {
            return Err(failure);
        }
        let items = self.merge(changes)?;
        let fresh = &mut self.unwritten.lock().fresh;
        fresh.items.extend(items);
        fresh.next.extend(next);
        Ok(())
    }

    /// Makes everything safe on the disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sync(&self) -> Result<(), StateError> {
        let _alone = self.writing.lock();
        let begun = self.unwritten.lock().begin();
        let Some(batch) = begun else {
            return Ok(());
        };
        self.write_batch(&batch)?;
        self.unwritten.lock().written();
        Ok(())
    }

    fn write_batch(&self, batch: &Batch) -> Result<(), StateError> {
        let encoded = batch
            .items
            .iter()
            .map(|(key, item)| Ok((key, serde_json::to_vec(item)?)));
        let encoded: Vec<_> = encoded.collect::<Result<_, StateError>>()?;
        self.write(|items, positions| {
            for ((asset, id), json) in &encoded {
                items.insert((asset.as_ref(), id.as_str()), json.as_slice())?;
            }
            for (&partition, &next) in &batch.next {
                positions.insert((self.topic.as_str(), partition), next)?;
            }
            Ok(())
        })
    }

    /// One attribute of an asset.
    ///
    /// # Errors
    /// When the store fails.
    pub fn item(&self, asset: &str, id: &str) -> Result<Option<Item>, StateError> {
        self.newest(&(asset.into(), id.to_owned()))
    }

    fn newest(&self, key: &Key) -> Result<Option<Item>, StateError> {
        // Memory first: what is written meanwhile is in the database by then.
        if let Some(item) = self.unwritten.lock().item(key) {
            return Ok(Some(item.clone()));
        }
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(ITEMS).map_err(redb::Error::from)?;
        let found = table.get((key.0.as_ref(), key.1.as_str()));
        let found = found.map_err(redb::Error::from)?;
        let item = found.map(|json| serde_json::from_slice(json.value()));
        Ok(item.transpose()?)
    }

    /// All attributes of an asset, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn items(&self, asset: &str) -> Result<Vec<Item>, StateError> {
        let newer = self.unwritten.lock().items(asset);
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(ITEMS).map_err(redb::Error::from)?;
        let mut items = BTreeMap::new();
        for entry in table.range((asset, "")..).map_err(redb::Error::from)? {
            let (key, json) = entry.map_err(redb::Error::from)?;
            let (of, id) = key.value();
            if of != asset {
                break;
            }
            items.insert(id.to_owned(), serde_json::from_slice(json.value())?);
        }
        items.extend(newer);
        Ok(items.into_values().collect())
    }

    /// The new items, each with what is already known of it.
    fn merge(&self, changes: Vec<Change>) -> Result<BTreeMap<Key, Item>, StateError> {
        let mut items: BTreeMap<Key, Item> = BTreeMap::new();
        for Change { asset, mut columns } in changes {
            let Some(id) = columns.id.take() else {
                continue;
            };
            let key = (asset, id);
            if let Some(item) = items.get_mut(&key) {
                item.merge(columns);
                continue;
            }
            let mut item = self.newest(&key)?.unwrap_or_else(|| Item {
                id: key.1.clone(),
                ..Item::default()
            });
            item.merge(columns);
            items.insert(key, item);
        }
        Ok(items)
    }

    fn write(
        &self,
        change: impl FnOnce(
            &mut Table<'_, (&str, &str), &[u8]>,
            &mut Table<'_, (&str, u32), u64>,
        ) -> Result<(), redb::StorageError>,
    ) -> Result<(), StateError> {
        let write = self.database.begin_write().map_err(redb::Error::from)?;
        {
            let mut items = write.open_table(ITEMS).map_err(redb::Error::from)?;
            let mut positions = write.open_table(POSITIONS).map_err(redb::Error::from)?;
            change(&mut items, &mut positions).map_err(redb::Error::from)?;
        }
        write.commit().map_err(redb::Error::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use redb::StorageBackend;

    use super::*;
    use crate::event::Columns;

    fn change(asset: &str, json: &str) -> Change {
        Change {
            asset: asset.into(),
            columns: Columns::parse(json.as_bytes()).unwrap(),
        }
    }

    fn value(store: &StateStore, asset: &str, id: &str) -> Option<String> {
        store.item(asset, id).unwrap().and_then(|item| item.value)
    }

    #[test]
    fn each_column_keeps_its_last_value_that_is_not_null() {
        let store = StateStore::open(None, "t").unwrap();
        let first = r#"{"ID":"x","VALUE":1,"TAG":"Position","TYPE":"Samples"}"#;
        store.apply(vec![change("A", first)], [(0, 1)]).unwrap();
        let then = [
            r#"{"id":"x","value":2}"#,
            r#"{"ID":"x","VALUE":null,"TYPE":"Events"}"#,
            r#"{"VALUE":9}"#,
        ];
        let then = then.iter().map(|json| change("A", json)).collect();
        store.apply(then, [(0, 4)]).unwrap();
        let expected = Item {
            id: "x".into(),
            value: Some("2".into()),
            kind: Some("Events".into()),
            tag: Some("Position".into()),
            timestamp: None,
        };
        assert_eq!(store.items("A").unwrap(), [expected]);
    }

    #[test]
    fn an_asset_has_its_own_items_alone() {
        let store = StateStore::open(None, "t").unwrap();
        let event = r#"{"ID":"x","VALUE":1}"#;
        let all = ["A", "A1", "B"].map(|asset| change(asset, event));
        store.apply(all.to_vec(), []).unwrap();
        assert_eq!(store.items("A").unwrap().len(), 1);
        assert_eq!(store.items("").unwrap(), []);
        assert_eq!(store.items("C").unwrap(), []);
    }

    #[test]
    fn state_and_position_outlive_the_process_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(Some(folder.path()), "t").unwrap();
        let event = change("A", r#"{"ID":"x","VALUE":1}"#);
        store.apply(vec![event], [(0, 5), (2, 7)]).unwrap();
        store.sync().unwrap();
        assert!(matches!(
            StateStore::open(Some(folder.path()), "t"),
            Err(StateError::Open { .. })
        ));
        drop(store);

        let store = StateStore::open(Some(folder.path()), "t").unwrap();
        assert_eq!(store.positions().unwrap(), BTreeMap::from([(0, 5), (2, 7)]));
        assert_eq!(value(&store, "A", "x").as_deref(), Some("1"));
        store.clear().unwrap();
        assert_eq!(store.positions().unwrap(), BTreeMap::new());
        assert_eq!(value(&store, "A", "x"), None);
    }

    /// A disk that makes nothing safe until it is let.
    #[derive(Debug)]
    struct BusyDisk {
        memory: InMemoryBackend,
        gate: Arc<Mutex<()>>,
        waits: mpsc::Sender<()>,
    }

    impl StorageBackend for BusyDisk {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            let _ = self.waits.send(());
            let _open = self.gate.lock();
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.memory.write(offset, data)
        }
    }

    #[test]
    fn who_reads_the_stream_does_not_wait_for_a_busy_disk() {
        let gate = Arc::new(Mutex::new(()));
        let (waits, waiting) = mpsc::channel();
        let disk = BusyDisk {
            memory: InMemoryBackend::new(),
            gate: Arc::clone(&gate),
            waits,
        };
        let database = Database::builder().create_with_backend(disk).unwrap();
        let store = Arc::new(StateStore::of(database, "t").unwrap());
        let event = |value: u32| change("A", &format!(r#"{{"ID":"x","VALUE":{value}}}"#));
        store.apply(vec![event(1)], [(0, 1)]).unwrap();
        while waiting.try_recv().is_ok() {}

        let closed = gate.lock();
        let syncs = std::thread::spawn({
            let store = Arc::clone(&store);
            move || store.sync()
        });
        waiting.recv().unwrap();
        let tag = change("A", r#"{"ID":"x","TAG":"Position"}"#);
        store.apply(vec![event(2), tag], [(0, 3)]).unwrap();
        store
            .apply(vec![change("A", r#"{"ID":"y","VALUE":9}"#)], [(0, 4)])
            .unwrap();
        assert_eq!(value(&store, "A", "x").as_deref(), Some("2"));
        let ids = store.items("A").unwrap();
        let ids: Vec<_> = ids.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["x", "y"]);

        drop(closed);
        syncs.join().unwrap().unwrap();
        assert_eq!(store.positions().unwrap(), BTreeMap::from([(0, 1)]));
        store.sync().unwrap();
        assert_eq!(store.positions().unwrap(), BTreeMap::from([(0, 4)]));
        let item = store.item("A", "x").unwrap().unwrap();
        assert_eq!(item.value.as_deref(), Some("2"));
        assert_eq!(item.tag.as_deref(), Some("Position"));
    }
}
