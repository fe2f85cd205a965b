//! A shard map that is read gives every asset exactly one shard, and is written as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ofa_crds::{KeyHash, ShardMap};

fuzz_target!(|text: &[u8]| {
    let Ok(map) = serde_json::from_slice::<ShardMap>(text) else {
        return;
    };
    for hash in [0, 1, u64::MAX / 2, u64::MAX] {
        assert!(map.index_of(KeyHash(hash)) < map.shards().len());
        if let Some(second) = map.second_index_of(KeyHash(hash)) {
            assert!(second < map.shards().len());
        }
    }
    let again = serde_json::to_vec(&map).unwrap();
    assert_eq!(serde_json::from_slice::<ShardMap>(&again).unwrap(), map);
});
