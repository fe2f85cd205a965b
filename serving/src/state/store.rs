//! The store: a table of items, and how far the stream is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, Table, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::Columns;

/// Items by (asset, id), as JSON.
const ITEMS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("items");

/// Next offset by (topic, partition).
const POSITIONS: TableDefinition<'_, (&str, u32), u64> = TableDefinition::new("positions");

/// The store's file in its folder.
const FILE: &str = "state.redb";

/// How much may have to be read again after a crash: a transaction that waits for the disk costs milliseconds,
/// so not every batch of events has one.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The store failed.
    #[error("the state store failed: {0}; check the disk of STATE_DIR")]
    Store(#[from] redb::Error),
    /// An item is not as it was written.
    #[error("an item of the state store is unreadable ({0}); empty STATE_DIR to have it rebuilt")]
    Item(#[from] serde_json::Error),
}

/// The latest of each column of an attribute, in upstream's order and names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The attribute's id.
    pub id: String,
    /// Its value as text.
    pub value: Option<String>,
    /// Samples, Events, Condition and others.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What the value is.
    pub tag: Option<String>,
    /// The device's timestamp.
    pub timestamp: Option<String>,
}

impl Item {
    fn merge(&mut self, newer: Columns) {
        let Columns {
            id: _,
            value,
            kind,
            tag,
            timestamp,
        } = newer;
        self.value = value.or(self.value.take());
        self.kind = kind.or(self.kind.take());
        self.tag = tag.or(self.tag.take());
        self.timestamp = timestamp.or(self.timestamp.take());
    }
}

/// Items by asset and id, as they go into the store.
type Encoded = BTreeMap<(Arc<str>, String), Vec<u8>>;

/// One event for the store.
#[derive(Debug, Clone)]
pub struct Change {
    /// The asset.
    pub asset: Arc<str>,
    /// What the event says; one without id changes nothing.
    pub columns: Columns,
}

/// The state of one topic's assets.
pub struct StateStore {
    database: Database,
    topic: String,
    synced_at: parking_lot::Mutex<Instant>,
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
        let store = Self {
            database,
            topic: topic.to_owned(),
            synced_at: parking_lot::Mutex::new(Instant::now()),
        };
        store.write(Durability::Immediate, |_, _| Ok(()))?;
        Ok(store)
    }

    /// The next offset of each partition that is in the store.
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
        self.write(Durability::Immediate, |items, positions| {
            items.retain(|_, _| false)?;
            positions.retain(|_, _| false)?;
            Ok(())
        })
    }

    /// Takes in events, in their order, and the positions after them.
    ///
    /// # Errors
    /// When the store fails.
    pub fn apply(
        &self,
        changes: Vec<Change>,
        next: impl IntoIterator<Item = (u32, u64)>,
    ) -> Result<(), StateError> {
        let newest = self.merge(changes)?;
        self.write(self.durability(), |items, positions| {
            for ((asset, id), json) in &newest {
                items.insert((asset.as_ref(), id.as_str()), json.as_slice())?;
            }
            for (partition, next) in next {
                positions.insert((self.topic.as_str(), partition), next)?;
            }
            Ok(())
        })
    }

    /// Makes everything safe on the disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sync(&self) -> Result<(), StateError> {
        self.write(Durability::Immediate, |_, _| Ok(()))
    }

    /// One attribute of an asset.
    ///
    /// # Errors
    /// When the store fails.
    pub fn item(&self, asset: &str, id: &str) -> Result<Option<Item>, StateError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(ITEMS).map_err(redb::Error::from)?;
        let found = table.get((asset, id)).map_err(redb::Error::from)?;
        let item = found.map(|json| serde_json::from_slice(json.value()));
        Ok(item.transpose()?)
    }

    /// All attributes of an asset, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn items(&self, asset: &str) -> Result<Vec<Item>, StateError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(ITEMS).map_err(redb::Error::from)?;
        let mut items = Vec::new();
        for entry in table.range((asset, "")..).map_err(redb::Error::from)? {
            let (key, json) = entry.map_err(redb::Error::from)?;
            if key.value().0 != asset {
                break;
            }
            items.push(serde_json::from_slice(json.value())?);
        }
        Ok(items)
    }

    /// The new items, each with what the store already has of it.
    fn merge(&self, changes: Vec<Change>) -> Result<Encoded, StateError> {
        let mut items: BTreeMap<(Arc<str>, String), Item> = BTreeMap::new();
        for Change { asset, mut columns } in changes {
            let Some(id) = columns.id.take() else {
                continue;
            };
            let key = (asset, id);
            if !items.contains_key(&key) {
                let id = key.1.clone();
                let known = self.item(&key.0, &id)?;
                let item = known.unwrap_or(Item {
                    id,
                    ..Item::default()
                });
                items.insert(key.clone(), item);
            }
            if let Some(item) = items.get_mut(&key) {
                item.merge(columns);
            }
        }
        let encoded = items
            .into_iter()
            .map(|(key, item)| Ok((key, serde_json::to_vec(&item)?)));
        encoded.collect()
    }

    fn durability(&self) -> Durability {
        let mut synced_at = self.synced_at.lock();
        if synced_at.elapsed() < SYNC_INTERVAL {
            return Durability::None;
        }
        *synced_at = Instant::now();
        Durability::Immediate
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(
            &mut Table<'_, (&str, &str), &[u8]>,
            &mut Table<'_, (&str, u32), u64>,
        ) -> Result<(), redb::StorageError>,
    ) -> Result<(), StateError> {
        let mut write = self.database.begin_write().map_err(redb::Error::from)?;
        write
            .set_durability(durability)
            .map_err(redb::Error::from)?;
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
    use super::*;

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
}
