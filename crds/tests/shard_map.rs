//! The shard map against OpenFactory's golden vectors and a plain 256-bit ring.
#![allow(clippy::unwrap_used, missing_docs)]

use ofa_crds::{KeyHash, Shard, ShardMap};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn shard(name: &str) -> Shard {
    Shard {
        name: name.parse().unwrap(),
        urls: vec![format!("nats://{name}:4222")],
        advertised_urls: vec![],
    }
}

fn map(names: &[&str]) -> ShardMap {
    ShardMap::from_ring(1, names.iter().map(|name| shard(name)).collect(), 128).unwrap()
}

/// OpenFactory's ring as its documentation puts it: full hashes, `bisect_right`, wrap to the first.
struct PlainRing(Vec<([u8; 32], String)>);

impl PlainRing {
    fn new(names: &[&str]) -> Self {
        let hash = |text: String| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
        let node = |name: &&str, r: u32| (hash(format!("{name}::{r}")), (*name).to_owned());
        let mut nodes: Vec<_> = names
            .iter()
            .flat_map(|name| (0..128).map(move |r| node(name, r)))
            .collect();
        nodes.sort();
        Self(nodes)
    }

    fn lookup(&self, key: &[u8]) -> &str {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let index = self.0.partition_point(|(node, _)| *node <= hash);
        &self.0[index % self.0.len()].1
    }
}

#[test]
fn golden_vectors_of_openfactory() {
    let (two, three) = (map(&["C1", "C2"]), map(&["C1", "C2", "C3"]));
    for (key, of_two, of_three) in [
        ("PROVER3018", "C2", "C2"),
        ("WTVB01-001", "C2", "C2"),
        ("OPCUA-SENSOR-001", "C1", "C3"),
        ("OPCUA-SENSOR-002", "C1", "C1"),
        ("VIRTUAL-TEMP-SENS-001", "C1", "C3"),
        ("VIRTUAL-BARCODE-READER", "C2", "C3"),
    ] {
        assert_eq!(
            two.shard_of(key.as_bytes()).name.as_str(),
            of_two,
            "{key} of two"
        );
        assert_eq!(
            three.shard_of(key.as_bytes()).name.as_str(),
            of_three,
            "{key} of three"
        );
    }
}

#[test]
fn a_million_random_keys_agree_with_a_plain_ring() {
    let names = ["C1", "C2", "weld", "Paint.3"];
    let (ring, map) = (PlainRing::new(&names), map(&names));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..1_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let key = state.to_le_bytes();
        assert_eq!(
            map.shard_of(&key).name.as_str(),
            ring.lookup(&key),
            "key {key:?}"
        );
    }
}

#[test]
fn order_of_the_shards_does_not_matter() {
    let (a, b) = (map(&["C1", "C2", "C3"]), map(&["C3", "C1", "C2"]));
    assert!(a.moves_to(&b).is_empty());
}

#[test]
fn what_is_no_map_is_refused() {
    let good = serde_json::to_value(map(&["C1", "C2"])).unwrap();
    assert_eq!(
        serde_json::from_value::<ShardMap>(good.clone()).unwrap(),
        map(&["C1", "C2"])
    );
    let broken = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = good.clone();
        change(&mut value);
        serde_json::from_value::<ShardMap>(value)
            .unwrap_err()
            .to_string()
    };
    assert!(
        broken(&|v| v["ranges"][0]["start"] = "0000000000000001".into()).contains("must begin")
    );
    assert!(broken(&|v| v["ranges"][1]["start"] = "0".into()).contains("must begin"));
    assert!(broken(&|v| v["ranges"][0]["shard"] = "C9".into()).contains("C9"));
    assert!(broken(&|v| v["shards"][1]["name"] = "C1".into()).contains("twice"));
    assert!(broken(&|v| v["shards"][0]["urls"] = serde_json::json!([])).contains("URL"));
    assert!(ShardMap::from_ring(1, vec![], 128).is_err());
    assert!(ShardMap::from_ring(1, vec![shard("a")], 0).is_err());
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::hash_set("[A-Za-z0-9][A-Za-z0-9-]{0,8}", 1..7)
        .prop_map(|set| set.into_iter().collect())
}

proptest! {
    #[test]
    fn every_hash_has_exactly_one_shard(names in names(), hash: u64) {
        let map = map(&names.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert!(map.index_of(KeyHash(hash)) < names.len());
        prop_assert!(map.index_of(KeyHash(0)) < names.len());
        prop_assert!(map.index_of(KeyHash(u64::MAX)) < names.len());
        prop_assert!((map.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn adding_a_shard_moves_only_to_it_and_removing_only_from_it(names in names(), added in "_?[a-z]{10,12}") {
        let added = format!("n{added}");
        let before: Vec<&str> = names.iter().map(String::as_str).collect();
        let after: Vec<&str> = before.iter().copied().chain([added.as_str()]).collect();
        let (before, after) = (map(&before), map(&after));
        prop_assert!(before.moves_to(&after).iter().all(|m| m.to.as_str() == added));
        prop_assert!(after.moves_to(&before).iter().all(|m| m.from.as_str() == added));
        let moved: f64 = before.moves_to(&after).iter().map(ofa_crds::Move::share).sum();
        prop_assert!((moved - after.shares()[names.len()]).abs() < 1e-9);
    }

    /// At every step of a change each asset's events reach the shard that clients are sent to, before and after.
    #[test]
    fn a_handover_never_leaves_clients_without_events(before in names(), after in names(), hash: u64) {
        let hash = KeyHash(hash);
        let stable = |names: &[String]| map(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let name = |map: &ShardMap, place: usize| map.shards()[place].name.as_str().to_owned();
        let published = |map: &ShardMap| -> Vec<String> {
            std::iter::once(map.index_of(hash)).chain(map.second_index_of(hash)).map(|place| name(map, place)).collect()
        };
        let (old, new) = (stable(&before), stable(&after));
        let (from, to) = (name(&old, old.index_of(hash)), name(&new, new.index_of(hash)));
        let dual = old.begin_handover(&new, 2);
        let announced = dual.clone().announce(3);
        for map in [&dual, &announced] {
            prop_assert!(published(map).contains(&from) && published(map).contains(&to));
            let json = serde_json::to_string(map).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ShardMap>(&json).unwrap(), map);
        }
        prop_assert_eq!(name(&dual, dual.index_of(hash)), from.as_str());
        prop_assert_eq!(name(&announced, announced.index_of(hash)), to.as_str());
        let done = announced.clone().commit(4);
        prop_assert_eq!(published(&done), vec![to]);
        prop_assert!(done.moves_to(&new).is_empty() && done.shards().len() == new.shards().len());
        for undone in [dual.abort(4), announced.abort(4)] {
            prop_assert_eq!(name(&undone, undone.index_of(hash)), from.clone());
            prop_assert!(undone.commit(5).moves_to(&old).is_empty());
        }
    }

    #[test]
    fn a_map_reads_back_as_written(names in names()) {
        let map = map(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let json = serde_json::to_string(&map).unwrap();
        prop_assert_eq!(serde_json::from_str::<ShardMap>(&json).unwrap(), map);
    }
}

/// Keys of one block and of several, with the padding in the last block or in one of its own.
#[test]
fn a_key_of_any_length_is_hashed_with_sha_256() {
    for length in 0..200 {
        let key = vec![b'k'; length];
        let digest: [u8; 32] = Sha256::digest(&key).into();
        let first = u64::from_be_bytes(digest[..8].try_into().unwrap());
        assert_eq!(KeyHash::of(&key), KeyHash(first), "{length} bytes");
    }
}
