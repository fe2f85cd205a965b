//! What one request asks for on one partition.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ofa_crds::replay::ReplayRequest;
use ofa_crds::{KeyHash, ShardMap};
use rdkafka::message::BorrowedMessage;

use super::record::Record;
use crate::range::Wanted;

/// The assets of a shard by a map; while owners change, those that it has or is about to have.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    map: Arc<ShardMap>,
    shard: usize,
}

impl Slice {
    /// The shard of this name; `None` if the map has none.
    #[must_use]
    pub(super) fn of(map: &Arc<ShardMap>, name: &str) -> Option<Self> {
        let shards = map.shards().iter();
        let shard = shards
            .map(|shard| shard.name.as_str())
            .position(|it| it == name)?;
        let map = Arc::clone(map);
        Some(Self { map, shard })
    }

    fn has(&self, hash: KeyHash) -> bool {
        self.map.index_of(hash) == self.shard || self.map.second_index_of(hash) == Some(self.shard)
    }
}

/// Assets, each from an offset on.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    assets: HashMap<Arc<str>, (KeyHash, u64)>,
    slices: Vec<(Slice, u64)>,
}

impl Lanes {
    /// The part of a request that is on a partition. `slices` are the request's shards, in the order of its asks.
    #[must_use]
    pub(super) fn of(request: &ReplayRequest, slices: &[Option<Slice>], partition: u32) -> Self {
        let mut lanes = Self::default();
        for (ask, slice) in request.asks.iter().zip(slices) {
            if let (Some(slice), Some(from)) = (slice, ask.from(partition, None)) {
                lanes.slices.push((slice.clone(), from));
            }
            for asset in &ask.assets {
                if let Some(from) = ask.from(partition, Some(asset)) {
                    lanes.add(&asset.asset, from);
                }
            }
        }
        lanes
    }

    fn add(&mut self, asset: &str, from: u64) {
        if let Some((_, lowest)) = self.assets.get_mut(asset) {
            *lowest = from.min(*lowest);
        } else {
            let hash = KeyHash::of(asset.as_bytes());
            self.assets.insert(asset.into(), (hash, from));
        }
    }

    /// The lowest offset that is asked for; `None` if nothing is.
    #[must_use]
    pub(super) fn lowest(&self) -> Option<u64> {
        let assets = self.assets.values().map(|(_, from)| *from);
        let slices = self.slices.iter().map(|(_, from)| *from);
        assets.chain(slices).min()
    }

    /// The assets with their hashes and first offsets, if nothing but assets is asked for.
    #[must_use]
    pub(super) fn only_assets(&self) -> Option<impl Iterator<Item = (&str, KeyHash, u64)>> {
        let assets = self.assets.iter();
        self.slices
            .is_empty()
            .then(|| assets.map(|(asset, (hash, from))| (&**asset, *hash, *from)))
    }

    /// Whether a record is asked for.
    #[must_use]
    pub(super) fn want(&self, record: &Record) -> bool {
        let own = self.assets.get(&record.asset);
        own.is_some_and(|(_, from)| record.offset >= *from)
            || self
                .slices
                .iter()
                .any(|(slice, from)| record.offset >= *from && slice.has(record.hash))
    }

    /// Those that are asked for from before `first`, with where they are: all that a loss of what lies before hits.
    pub(super) fn before(&self, first: u64) -> impl Iterator<Item = (Option<Arc<str>>, u64)> {
        let assets: BTreeSet<(Arc<str>, u64)> = self
            .assets
            .iter()
            .filter(|(_, (_, from))| *from < first)
            .map(|(asset, (_, from))| (Arc::clone(asset), *from))
            .collect();
        let slices = self.slices.iter().map(|(_, from)| *from);
        let slices: Vec<u64> = slices.filter(|from| *from < first).collect();
        assets
            .into_iter()
            .map(|(asset, from)| (Some(asset), from))
            .chain(slices.into_iter().map(|from| (None, from)))
    }
}

/// What is asked of Kafka where memory no longer has it.
impl Wanted for Lanes {
    type Item = Record;

    fn assets(&self) -> Option<Vec<Arc<str>>> {
        let assets = self.assets.keys().cloned();
        self.slices.is_empty().then(|| assets.collect())
    }

    fn wants_asset(&self, asset: &str) -> bool {
        let of_slice = || {
            let hash = KeyHash::of(asset.as_bytes());
            self.slices.iter().any(|(slice, _)| slice.has(hash))
        };
        self.assets.contains_key(asset) || (!self.slices.is_empty() && of_slice())
    }

    fn read(_: &str, record: &BorrowedMessage<'_>) -> Option<Record> {
        Record::of(record)
    }

    fn wants(&self, record: &Record) -> bool {
        self.want(record)
    }

    fn size(record: &Record) -> usize {
        record.size()
    }
}

#[cfg(test)]
pub(super) fn for_test(assets: &[(&str, u64)]) -> Lanes {
    let mut lanes = Lanes::default();
    for (asset, from) in assets {
        lanes.add(asset, *from);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use ofa_crds::Shard;
    use ofa_crds::replay::{AssetAsk, ReplayAsk};

    use super::*;

    fn map() -> Arc<ShardMap> {
        let shard = |name: &str| Shard {
            name: name.parse().unwrap(),
            urls: vec!["nats://n:4222".to_owned()],
            advertised_urls: vec![],
        };
        Arc::new(ShardMap::from_ring(1, vec![shard("C1"), shard("C2")], 128).unwrap())
    }

    #[test]
    fn a_shard_has_its_assets_and_no_others() {
        let slice = |name| Slice::of(&map(), name);
        // By OpenFactory's golden vectors.
        let hash = KeyHash::of(b"PROVER3018");
        assert!(slice("C2").unwrap().has(hash));
        assert!(!slice("C1").unwrap().has(hash));
        assert!(slice("C9").is_none());
    }

    #[test]
    fn asks_for_one_asset_come_together() {
        let ask = |from: u64, assets: &[&str], shard: Option<&str>| ReplayAsk {
            since: [(0, from)].into(),
            shard: shard.map(str::to_owned),
            assets: assets
                .iter()
                .map(|asset| AssetAsk {
                    asset: (*asset).to_owned(),
                    from: [(1, 50)].into(),
                })
                .collect(),
        };
        let request = ReplayRequest {
            asks: vec![
                ask(7, &["A"], None),
                ask(5, &["A"], None),
                ask(9, &[], Some("C2")),
            ],
        };
        let slices = [None, None, Slice::of(&map(), "C2")];
        let lanes = Lanes::of(&request, &slices, 0);
        assert_eq!(lanes.lowest(), Some(5));
        assert!(lanes.only_assets().is_none());
        let wanted = |asset: &str, offset| lanes.want(&Record::for_test(offset, asset));
        assert!(wanted("A", 5) && !wanted("A", 4));
        assert!(wanted("PROVER3018", 9) && !wanted("PROVER3018", 8));
        assert!(!wanted("OPCUA-SENSOR-001", 9));
        let hit: Vec<_> = lanes.before(9).collect();
        assert_eq!(hit, [(Some("A".into()), 5)]);
        assert_eq!(Lanes::of(&request, &slices, 1).lowest(), Some(0));
    }
}
