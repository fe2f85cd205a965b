//! What a client has had of its assets, in positions of the source.
//!
//! An id tells how far a client is in a group's topic, which is further than the last event of its asset there: others' events have
//! come since, while the asset may have been in another group already. So what counts is the asset's own last record. Where it has
//! none among the last ones, nothing can be said of what it has sent elsewhere in that time.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use ofa_crds::Cursor;

use super::super::seen::{AssetTag, Seen};
use super::search::{Mark, Search, SourcePartition, WIDER, WINDOW, found};
use super::{Away, Moves};

/// Records of each partition that are searched for an asset's last one.
const FARTHEST: u64 = WINDOW * WIDER * WIDER;

/// How far a client is in the source.
#[derive(Debug, Default)]
pub(super) struct Had {
    /// Each asset's last record that it has had.
    last: HashMap<(AssetTag, SourcePartition), u64>,
    /// From here on all records have been looked at, up to behind the last one.
    looked: HashMap<SourcePartition, Range<u64>>,
    /// Partitions of the derived topics of which anything is known.
    partitions: BTreeSet<u32>,
    /// On which of them assets were found.
    homes: HashMap<AssetTag, BTreeSet<u32>>,
}

impl Had {
    /// By how far a client is in topics of `partitions` partitions; `None` if one says nothing of its source, or is not made as the
    /// others.
    pub(super) async fn of(
        moves: &Moves,
        parts: &[&Seen],
        partitions: usize,
        assets: &[AssetTag],
    ) -> Result<Option<Self>, Away> {
        let mut had = Self::default();
        for seen in parts {
            let topic = seen.base().topic();
            let bounds = moves.ends.committed(topic).await?;
            let Some(bounds) = bounds.filter(|bounds| bounds.len() == partitions) else {
                return Ok(None);
            };
            let searches = (0..).zip(bounds).map(|(partition, (low, end))| {
                let end = end.min(seen.base().next(partition));
                (
                    partition,
                    Search::of(moves, topic, partition, low..end.max(low)),
                )
            });
            let searches: Vec<(u32, Search<'_>)> = searches.collect();
            if !had.look(&searches, assets).await? {
                return Ok(None);
            }
        }
        Ok(Some(had))
    }

    /// Looks back as far as each asset's last record, if that is not too far. False if a topic says nothing of its source.
    async fn look(
        &mut self,
        searches: &[(u32, Search<'_>)],
        assets: &[AssetTag],
    ) -> Result<bool, Away> {
        let mut width = WINDOW;
        loop {
            let mut has_all = BTreeSet::new();
            let mut reaches_low = true;
            let mut all = Vec::new();
            for (partition, search) in searches {
                let marks = search.last(width, assets).await?;
                has_all.append(&mut found(&marks, assets));
                reaches_low &= search.start_of(width) == search.low;
                all.push((*partition, marks));
            }
            if has_all.len() == assets.len() || reaches_low || width >= FARTHEST {
                return Ok(all
                    .iter()
                    .all(|(partition, marks)| self.note(*partition, marks)));
            }
            width *= WIDER;
        }
    }

    /// Takes records of a partition in; false if they say nothing of their source.
    fn note(&mut self, partition: u32, marks: &[Arc<Mark>]) -> bool {
        if marks.last().is_some_and(|last| last.source.is_none()) {
            return false;
        }
        for mark in marks {
            let Some((place, offset)) = mark.origin() else {
                continue;
            };
            self.partitions.insert(partition);
            self.homes.entry(mark.asset).or_default().insert(partition);
            let looked = self.looked.entry(place.clone()).or_insert(offset..0);
            looked.start = looked.start.min(offset);
            looked.end = looked.end.max(offset + 1);
            let last = self.last.entry((mark.asset, place)).or_default();
            *last = offset.max(*last);
        }
        true
    }

    /// Whether the client has had a record of an asset; `None` if that is not known. Records of former versions tell no position, and
    /// are older than all that do.
    pub(super) fn has(&self, asset: AssetTag, source: Option<&Cursor>) -> Option<bool> {
        let Some(source) = source else {
            return Some(true);
        };
        let place = (source.topic.clone(), source.partition);
        let looked = self.looked.get(&place)?;
        match self.last.get(&(asset, place)) {
            Some(last) => Some(source.offset <= *last),
            None if source.offset < looked.start => Some(true),
            None if source.offset >= looked.end => Some(false),
            None => None,
        }
    }

    /// Whether anything is known of a partition of the source.
    pub(super) fn knows_source(&self, source: &Cursor) -> bool {
        let place = (source.topic.clone(), source.partition);
        self.looked.contains_key(&place)
    }

    /// Whether anything is known of a partition of the derived topics.
    pub(super) fn knows(&self, partition: u32) -> bool {
        self.partitions.contains(&partition)
    }

    /// Whether an asset may have had events on a partition.
    pub(super) fn may_have(&self, asset: AssetTag, partition: u32) -> bool {
        let home = self.homes.get(&asset);
        home.is_none_or(|home| home.contains(&partition))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn mark(asset: &str, offset: u64, source: Option<&str>) -> Arc<Mark> {
        Arc::new(Mark {
            asset: AssetTag::of(asset),
            offset,
            source: source.map(|text| text.parse().unwrap()),
        })
    }

    /// Of a client that has had these records of partition 0.
    pub(in super::super) fn had(marks: &[(&str, &str)]) -> Had {
        let mut had = Had::default();
        for (offset, (asset, source)) in (0..).zip(marks) {
            assert!(had.note(0, &[mark(asset, offset, Some(source))]));
        }
        had
    }

    #[test]
    fn an_assets_own_last_record_counts() {
        let had = had(&[("X", "s/0/20"), ("Y", "s/0/25"), ("Y", "s/1/3")]);
        let has = |asset: &str, source: &str| {
            had.has(AssetTag::of(asset), Some(&source.parse().unwrap()))
        };
        assert_eq!(has("X", "s/0/20"), Some(true));
        assert_eq!(has("X", "s/0/21"), Some(false));
        assert_eq!(has("Y", "s/0/25"), Some(true));
        // It is not among those that were looked at.
        assert_eq!(has("Z", "s/0/19"), Some(true));
        assert_eq!(has("Z", "s/0/20"), None);
        assert_eq!(has("Z", "s/0/25"), None);
        assert_eq!(has("Z", "s/0/26"), Some(false));
        assert_eq!(has("X", "s/2/1"), None);
    }
}
