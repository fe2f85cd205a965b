//! Which shard has an asset: an epoch and a sorted list of hash ranges.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::names::ShardName;
use crate::ring;

/// The hash that places a key: the first 8 bytes, big-endian, of SHA-256 over the raw key bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Hashes the raw bytes of a Kafka key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(ring::prefix(&Sha256::digest(key).into()))
    }
}

/// One shard: its name on the ring and how its nodes are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// Name on the ring.
    pub name: ShardName,
    /// Client URL of every node (`nats://host:port`), at least one.
    pub urls: Vec<String>,
    /// Client URLs to tell clients, where they differ from `urls` (nodes behind a load balancer).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertised_urls: Vec<String>,
}

impl Shard {
    /// The URLs a client outside the platform connects to.
    #[must_use]
    pub fn client_urls(&self) -> &[String] {
        if self.advertised_urls.is_empty() {
            &self.urls
        } else {
            &self.advertised_urls
        }
    }
}

/// Why a list of shards or ranges is no shard map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShardMapError {
    /// No shard at all.
    #[error("a shard map needs at least one shard")]
    NoShards,
    /// Two shards of one name.
    #[error("shard {0} is listed twice; names on the ring must differ")]
    DuplicateShard(ShardName),
    /// A shard nobody can connect to.
    #[error("shard {0} has no URL; give it at least one nats:// address")]
    NoUrl(ShardName),
    /// More shards than the map can index.
    #[error("{0} shards are more than the {max} a map can hold", max = u16::MAX)]
    TooManyShards(usize),
    /// No virtual nodes.
    #[error("the ring needs at least one virtual node per shard (HASH_RING_REPLICAS)")]
    NoReplicas,
    /// Ranges that do not cover every hash exactly once.
    #[error("ranges must begin at 0000000000000000 and ascend without repetition")]
    BadRanges,
    /// A range whose shard is not listed.
    #[error("a range belongs to {0}, which is not among the shards")]
    UnknownShard(ShardName),
}

/// A piece of the hash space that has one owner in one map and another in the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// First hash of the piece.
    pub first: u64,
    /// Last hash of the piece, inclusive.
    pub last: u64,
    /// Owner before.
    pub from: ShardName,
    /// Owner after.
    pub to: ShardName,
}

impl Move {
    /// The piece's share of all hashes, 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share for people, not a boundary"
    )]
    pub fn share(&self) -> f64 {
        ((self.last - self.first) as f64 + 1.0) / 2f64.powi(64)
    }
}

/// A complete, valid assignment of every possible key to exactly one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::ShardMap", into = "wire::ShardMap")]
pub struct ShardMap {
    epoch: u64,
    shards: Vec<Shard>,
    starts: Vec<u64>,
    owners: Vec<u16>,
}

impl ShardMap {
    /// Fills the map by OpenFactory's ring with `replicas` virtual nodes for each shard.
    ///
    /// # Errors
    /// Without shards or virtual nodes, with a name twice or a shard without URL.
    pub fn from_ring(epoch: u64, shards: Vec<Shard>, replicas: u32) -> Result<Self, ShardMapError> {
        check_shards(&shards)?;
        if replicas == 0 {
            return Err(ShardMapError::NoReplicas);
        }
        let names: Vec<ShardName> = shards.iter().map(|shard| shard.name.clone()).collect();
        let (starts, owners) = ring::ranges(&names, replicas)
            .into_iter()
            .map(|(start, owner)| (start, index(owner)))
            .unzip();
        Ok(Self {
            epoch,
            shards,
            starts,
            owners,
        })
    }

    /// The map's version. A higher epoch replaces a lower one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The same assignment under another epoch.
    #[must_use]
    pub fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// All shards; [`Self::index_of`] indexes this list.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Index of the shard that has this hash.
    #[must_use]
    pub fn index_of(&self, hash: KeyHash) -> usize {
        let range = self.starts.partition_point(|&start| start <= hash.0) - 1;
        usize::from(self.owners[range])
    }

    /// The shard that has this key.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> &Shard {
        &self.shards[self.index_of(KeyHash::of(key))]
    }

    /// Number of ranges.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.starts.len()
    }

    /// Each shard's share of all hashes, 0 to 1, in the order of [`Self::shards`].
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share for people, not a boundary"
    )]
    pub fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.shards.len()];
        for (range, &owner) in self.owners.iter().enumerate() {
            let width = (self.last_of(range) - self.starts[range]) as f64 + 1.0;
            shares[usize::from(owner)] += width / 2f64.powi(64);
        }
        shares
    }

    /// What changes hands on the way to `next`, in the order of the hashes.
    #[must_use]
    pub fn moves_to(&self, next: &Self) -> Vec<Move> {
        let mut starts: Vec<u64> = self.starts.iter().chain(&next.starts).copied().collect();
        starts.sort_unstable();
        starts.dedup();
        let mut moves: Vec<Move> = Vec::new();
        for (position, &first) in starts.iter().enumerate() {
            let last = starts.get(position + 1).map_or(u64::MAX, |start| start - 1);
            let from = &self.shards[self.index_of(KeyHash(first))].name;
            let to = &next.shards[next.index_of(KeyHash(first))].name;
            if from == to {
                continue;
            }
            match moves.last_mut() {
                Some(m) if m.last.wrapping_add(1) == first && m.from == *from && m.to == *to => {
                    m.last = last;
                }
                _ => moves.push(Move {
                    first,
                    last,
                    from: from.clone(),
                    to: to.clone(),
                }),
            }
        }
        moves
    }

    fn last_of(&self, range: usize) -> u64 {
        self.starts
            .get(range + 1)
            .map_or(u64::MAX, |start| start - 1)
    }
}

fn check_shards(shards: &[Shard]) -> Result<(), ShardMapError> {
    if shards.is_empty() {
        return Err(ShardMapError::NoShards);
    }
    if shards.len() > usize::from(u16::MAX) {
        return Err(ShardMapError::TooManyShards(shards.len()));
    }
    let mut names = std::collections::HashSet::new();
    for shard in shards {
        if shard.urls.is_empty() {
            return Err(ShardMapError::NoUrl(shard.name.clone()));
        }
        if !names.insert(&shard.name) {
            return Err(ShardMapError::DuplicateShard(shard.name.clone()));
        }
    }
    Ok(())
}

/// `check_shards` bounds the count, so the index always fits.
fn index(owner: usize) -> u16 {
    u16::try_from(owner).unwrap_or(u16::MAX)
}

/// The JSON form: starts as 16 hexadecimal digits, since JSON numbers lose bits past 2^53.
mod wire {
    use serde::{Deserialize, Serialize};

    use super::{Shard, ShardMapError, check_shards, index};
    use crate::names::ShardName;

    #[derive(Serialize, Deserialize)]
    pub(super) struct ShardMap {
        epoch: u64,
        shards: Vec<Shard>,
        ranges: Vec<Range>,
    }

    #[derive(Serialize, Deserialize)]
    struct Range {
        start: String,
        shard: ShardName,
    }

    impl From<super::ShardMap> for ShardMap {
        fn from(map: super::ShardMap) -> Self {
            let ranges = map
                .starts
                .iter()
                .zip(&map.owners)
                .map(|(start, &owner)| Range {
                    start: format!("{start:016x}"),
                    shard: map.shards[usize::from(owner)].name.clone(),
                });
            Self {
                epoch: map.epoch,
                ranges: ranges.collect(),
                shards: map.shards,
            }
        }
    }

    impl TryFrom<ShardMap> for super::ShardMap {
        type Error = ShardMapError;

        fn try_from(wire: ShardMap) -> Result<Self, ShardMapError> {
            check_shards(&wire.shards)?;
            let mut starts = Vec::with_capacity(wire.ranges.len());
            let mut owners = Vec::with_capacity(wire.ranges.len());
            for range in wire.ranges {
                starts.push(parse_start(&range.start)?);
                let owner = wire
                    .shards
                    .iter()
                    .position(|shard| shard.name == range.shard);
                owners.push(
                    owner
                        .map(index)
                        .ok_or(ShardMapError::UnknownShard(range.shard))?,
                );
            }
            if starts.first() != Some(&0) || !starts.is_sorted_by(|a, b| a < b) {
                return Err(ShardMapError::BadRanges);
            }
            Ok(Self {
                epoch: wire.epoch,
                shards: wire.shards,
                starts,
                owners,
            })
        }
    }

    fn parse_start(digits: &str) -> Result<u64, ShardMapError> {
        let well_formed = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let start = well_formed
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten();
        start.ok_or(ShardMapError::BadRanges)
    }
}
