//! The control topic as a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tracing::warn;

use crate::control::{Ack, ControlKey, ControlRole, GroupService, MixedPartitions, Wanted};
use crate::shard_map::ShardMap;

/// The control topic as a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControlState {
    /// Whether everything that stood on the topic when reading began has been read.
    pub caught_up: bool,
    /// The newest map of each pool.
    pub maps: BTreeMap<String, Arc<ShardMap>>,
    /// The newest acknowledgement of each (pool, role, member).
    pub acks: BTreeMap<(String, ControlRole, String), Ack>,
    /// For each pool, the assets that were found on two partitions.
    pub mixed: BTreeMap<String, MixedPartitions>,
    /// The service of each group, by the group's topic.
    pub groups: BTreeMap<String, GroupService>,
    /// When each (topic, member) needed a group's service last, milliseconds since the Unix epoch.
    pub wanted: BTreeMap<(String, String), i64>,
}

impl ControlState {
    /// Members of a pool that act by an epoch below `epoch`.
    #[must_use]
    pub fn behind(&self, pool: &str, role: ControlRole, epoch: u64) -> Vec<String> {
        let of_pool = self
            .acks
            .iter()
            .filter(|((p, r, _), _)| p == pool && *r == role);
        of_pool
            .filter(|(_, ack)| ack.epoch < epoch)
            .map(|((_, _, member), _)| member.clone())
            .collect()
    }

    /// Takes in one record. Returns whether it changed anything; what is unreadable changes nothing.
    pub(super) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let Some(key) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.parse().ok())
        else {
            return false;
        };
        match (key, value) {
            (ControlKey::Map { pool }, None) => self.maps.remove(&pool).is_some(),
            (ControlKey::Map { pool }, Some(json)) => self.apply_map(pool, json),
            (ControlKey::Mixed { pool }, None) => self.mixed.remove(&pool).is_some(),
            (ControlKey::Mixed { pool }, Some(json)) => put(&mut self.mixed, pool, read(json)),
            (ControlKey::Ack { pool, role, member }, None) => {
                self.acks.remove(&(pool, role, member)).is_some()
            }
            (ControlKey::Ack { pool, role, member }, Some(json)) => {
                put(&mut self.acks, (pool, role, member), read(json))
            }
            (ControlKey::Group { topic }, None) => self.groups.remove(&topic).is_some(),
            (ControlKey::Group { topic }, Some(json)) => put(&mut self.groups, topic, read(json)),
            (ControlKey::Wanted { topic, member }, None) => {
                self.wanted.remove(&(topic, member)).is_some()
            }
            (ControlKey::Wanted { topic, member }, Some(json)) => {
                let at = read(json).map(|wanted: Wanted| wanted.at_ms);
                put(&mut self.wanted, (topic, member), at)
            }
        }
    }

    /// When a group's service was needed last, milliseconds since the Unix epoch.
    #[must_use]
    pub fn last_wanted(&self, topic: &str) -> Option<i64> {
        self.wanted_by(topic).map(|(_, at)| at).max()
    }

    /// Who needed a group's service, and when.
    pub fn wanted_by(&self, topic: &str) -> impl Iterator<Item = (&str, i64)> {
        let of_topic = self.wanted.iter().filter(move |((of, _), _)| of == topic);
        of_topic.map(|((_, member), at)| (member.as_str(), *at))
    }

    /// An epoch never goes back: a late write of an operator that lost its lease is passed over.
    fn apply_map(&mut self, pool: String, json: &[u8]) -> bool {
        match serde_json::from_slice::<ShardMap>(json) {
            Ok(map)
                if self
                    .maps
                    .get(&pool)
                    .is_none_or(|old| old.epoch() < map.epoch()) =>
            {
                self.maps.insert(pool, Arc::new(map));
                true
            }
            Ok(_) => false,
            Err(error) => {
                warn!(pool, %error, "a shard map on the control topic is unreadable; the last good one stays");
                false
            }
        }
    }
}

/// What is unreadable is passed over.
fn read<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

/// Returns whether anything is different.
fn put<K: Ord, V: PartialEq>(table: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    value.is_some_and(|value| match table.get_mut(&key) {
        Some(old) if *old == value => false,
        Some(old) => {
            *old = value;
            true
        }
        None => table.insert(key, value).is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard_map::Shard;

    fn map(epoch: u64) -> Vec<u8> {
        let shard = Shard {
            name: "C1".parse().unwrap(),
            urls: vec!["nats://h:4222".into()],
            advertised_urls: vec![],
        };
        serde_json::to_vec(&ShardMap::from_ring(epoch, vec![shard], 4).unwrap()).unwrap()
    }

    #[test]
    fn only_a_higher_epoch_replaces_a_map() {
        let mut state = ControlState::default();
        assert!(state.apply(b"map/p", Some(&map(2))));
        assert!(!state.apply(b"map/p", Some(&map(1))));
        assert!(!state.apply(b"map/p", Some(b"{}")));
        assert!(!state.apply(b"nonsense", Some(b"{}")));
        assert_eq!(state.maps["p"].epoch(), 2);
        assert!(state.apply(b"map/p", None));
        assert!(state.maps.is_empty());
    }

    #[test]
    fn who_has_not_acknowledged_is_named() {
        let mut state = ControlState::default();
        assert!(state.apply(b"ack/p/forwarder/a", Some(br#"{"epoch":1,"atMs":5}"#)));
        assert!(state.apply(b"ack/p/forwarder/b", Some(br#"{"epoch":2,"atMs":5}"#)));
        assert!(state.apply(b"ack/p/router/c", Some(br#"{"epoch":1,"atMs":5}"#)));
        assert_eq!(state.behind("p", ControlRole::Forwarder, 2), ["a"]);
        assert!(state.apply(b"ack/p/forwarder/a", None));
        assert!(state.behind("p", ControlRole::Forwarder, 2).is_empty());
    }

    #[test]
    fn a_group_is_wanted_as_long_as_anybody_wants_it() {
        let mut state = ControlState::default();
        let service = br#"{"group":"Weld","level":"workcenter","onDemand":true}"#;
        assert!(state.apply(b"group/t", Some(service)));
        assert!(!state.apply(b"group/t", Some(service)));
        assert!(state.apply(b"wanted/t/a", Some(br#"{"atMs":5}"#)));
        assert!(state.apply(b"wanted/t/b", Some(br#"{"atMs":7}"#)));
        assert!(state.apply(b"wanted/other/b", Some(br#"{"atMs":9}"#)));
        assert_eq!(state.last_wanted("t"), Some(7));
        assert!(state.apply(b"wanted/t/b", None));
        assert_eq!(state.last_wanted("t"), Some(5));
        assert!(state.groups["t"].url.is_none());
    }
}
