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
mod tests;
