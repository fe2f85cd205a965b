//! What is newer than the database: it is read first, and written together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::item::Item;

/// An asset and an attribute's id.
pub(super) type Key = (Arc<str>, String);

/// Items and positions that belong together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: BTreeMap<Key, Item>,
    /// Next offset by partition.
    pub(super) next: BTreeMap<u32, u64>,
}

/// Two generations: one that changes, and one that is being written and stays readable meanwhile.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    pub(super) fresh: Batch,
    writing: Option<Arc<Batch>>,
}

impl Unwritten {
    /// The item, if it is newer than the database.
    pub(super) fn item(&self, key: &Key) -> Option<&Item> {
        let writing = || self.writing.as_ref()?.items.get(key);
        self.fresh.items.get(key).or_else(writing)
    }

    /// All items of an asset that are newer than the database, by id.
    pub(super) fn items(&self, asset: &str) -> BTreeMap<String, Item> {
        let first: Key = (asset.into(), String::new());
        let batches = self.writing.as_deref().into_iter().chain([&self.fresh]);
        let of_asset = batches.flat_map(|batch| {
            let from = batch.items.range(first.clone()..);
            from.take_while(|((of, _), _)| **of == *asset)
        });
        of_asset
            .map(|((_, id), item)| (id.clone(), item.clone()))
            .collect()
    }

    /// What is to be written now; [`Unwritten::written`] is to follow. None when there is nothing.
    pub(super) fn begin(&mut self) -> Option<Arc<Batch>> {
        let is_empty = self.fresh.items.is_empty() && self.fresh.next.is_empty();
        if self.writing.is_none() && !is_empty {
            self.writing = Some(Arc::new(std::mem::take(&mut self.fresh)));
        }
        self.writing.clone()
    }

    /// What [`Unwritten::begin`] gave is in the database.
    pub(super) fn written(&mut self) {
        self.writing = None;
    }
}
