//! What clients are told when a shard map comes into force: enough to know whether to ask a router, and no more, since every client gets it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::ShardMap;
use crate::ring;

/// The message on [`map_notice`](crate::subject::map_notice), as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNotice {
    /// The map's epoch. A router that answers by a lower one has not read the map yet.
    pub epoch: u64,
    /// Where clients are sent by it.
    pub assignment: Assignment,
}

impl MapNotice {
    /// Of this map.
    #[must_use]
    pub fn of(map: &ShardMap) -> Self {
        Self {
            epoch: map.epoch(),
            assignment: map.assignment(),
        }
    }
}

/// A digest of where clients are sent: each range's shard, and the client URLs of these shards. Maps that differ in
/// anything else only have the same, so that most epochs of a change of owners concern no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Assignment(u64);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no digest of an assignment, which has 16 hexadecimal digits")]
pub struct NoAssignment(String);

impl Assignment {
    pub(super) fn of(map: &ShardMap) -> Self {
        let ranges = map.client_ranges();
        let mut text = Sha256::new();
        let mut put = |part: &[u8]| {
            text.update((part.len() as u64).to_be_bytes());
            text.update(part);
        };
        for (start, owner) in ranges.starts().iter().zip(ranges.owners()) {
            put(&start.to_be_bytes());
            put(map.shards[usize::from(*owner)].name.as_str().as_bytes());
        }
        for (place, shard) in map.shards.iter().enumerate() {
            if ranges.any_of(super::index(place)) {
                put(shard.name.as_str().as_bytes());
                shard
                    .client_urls()
                    .iter()
                    .for_each(|url| put(url.as_bytes()));
            }
        }
        Self(ring::prefix(&text.finalize().into()))
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl FromStr for Assignment {
    type Err = NoAssignment;

    fn from_str(text: &str) -> Result<Self, NoAssignment> {
        let is_digest = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
        let digest = is_digest.then(|| u64::from_str_radix(text, 16).ok());
        let digest = digest.flatten();
        digest
            .map(Self)
            .ok_or_else(|| NoAssignment(text.to_owned()))
    }
}

impl TryFrom<String> for Assignment {
    type Error = NoAssignment;

    fn try_from(text: String) -> Result<Self, NoAssignment> {
        text.parse()
    }
}

impl From<Assignment> for String {
    fn from(assignment: Assignment) -> Self {
        assignment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shard;
    use super::*;

    fn map(names: &[&str]) -> ShardMap {
        let shards = names.iter().map(|name| Shard {
            name: name.parse().unwrap(),
            urls: vec![format!("nats://{name}:4222")],
            advertised_urls: vec![],
        });
        ShardMap::from_ring(1, shards.collect(), 8).unwrap()
    }

    #[test]
    fn in_a_change_of_owners_it_changes_when_clients_are_sent_elsewhere_and_only_then() {
        let (before, after) = (map(&["C1", "C2"]), map(&["C1", "C2", "C3"]));
        let dual = before.begin_handover(&after, 2);
        assert_eq!(dual.assignment(), before.assignment());
        let announced = dual.announce(3);
        assert_ne!(announced.assignment(), before.assignment());
        let aborted = announced.clone().abort(4);
        assert_eq!(aborted.assignment(), before.assignment());
        assert_eq!(aborted.commit(5).assignment(), before.assignment());
        assert_eq!(announced.assignment(), after.assignment());
        let back = after.begin_handover(&before, 5).announce(6);
        assert_eq!(back.commit(7).assignment(), before.assignment());
    }

    #[test]
    fn it_tells_shards_and_their_addresses_apart() {
        let plain = map(&["C1", "C2"]);
        assert_ne!(map(&["C1", "C3"]).assignment(), plain.assignment());
        let mut shards = plain.shards().to_vec();
        shards[0].advertised_urls = vec!["nats://outside:4222".into()];
        let advertised = ShardMap::from_ring(1, shards, 8).unwrap();
        assert_ne!(advertised.assignment(), plain.assignment());
    }

    #[test]
    fn a_notice_is_json_that_comes_back() {
        let notice = MapNotice {
            epoch: 7,
            assignment: Assignment(0xab),
        };
        let text = serde_json::to_string(&notice).unwrap();
        assert_eq!(text, r#"{"epoch":7,"assignment":"00000000000000ab"}"#);
        assert_eq!(serde_json::from_str::<MapNotice>(&text).unwrap(), notice);
        for bad in ["", "ab", "+0000000000000ab", "00000000000000abc"] {
            assert!(bad.parse::<Assignment>().is_err(), "{bad}");
        }
    }
}
