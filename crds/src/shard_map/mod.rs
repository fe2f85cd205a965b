//! Which shard has an asset: an epoch and a sorted list of hash ranges.

pub mod handover;
mod hash;
mod notice;
mod ranges;
mod wire;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use hash::KeyHash;
pub use notice::{Assignment, MapNotice, NoAssignment};
use ranges::Ranges;

use crate::names::ShardName;
use crate::ring;

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
    ranges: Ranges,
    handover: Option<Handover>,
}

/// How far a change of owners has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandoverPhase {
    /// Moved assets are published to both shards; clients are still sent to the old one.
    DualPublish,
    /// Moved assets are published to both shards; clients are sent to the new one.
    Announce,
}

/// A change of owners under way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Handover {
    phase: HandoverPhase,
    next: Ranges,
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
            ranges: Ranges::new(starts, owners),
            handover: None,
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

    /// Index of the shard that clients of this hash are sent to.
    #[must_use]
    pub fn index_of(&self, hash: KeyHash) -> usize {
        usize::from(self.client_ranges().owner_of(hash))
    }

    /// Index of the shard that has to get the events of this hash as well while owners change.
    #[must_use]
    pub fn second_index_of(&self, hash: KeyHash) -> Option<usize> {
        let handover = self.handover.as_ref()?;
        let (old, new) = (self.ranges.owner_of(hash), handover.next.owner_of(hash));
        let second = match handover.phase {
            HandoverPhase::DualPublish => new,
            HandoverPhase::Announce => old,
        };
        (old != new).then_some(usize::from(second))
    }

    /// How far a change of owners has come, when one is under way.
    #[must_use]
    pub fn handover(&self) -> Option<HandoverPhase> {
        self.handover.as_ref().map(|handover| handover.phase)
    }

    /// Begins to change owners to those of `next`: moved assets are published to both shards.
    #[must_use]
    pub fn begin_handover(&self, next: &Self, epoch: u64) -> Self {
        let mut shards = self.shards.clone();
        for shard in &next.shards {
            match shards.iter_mut().find(|known| known.name == shard.name) {
                Some(known) => known.clone_from(shard),
                None => shards.push(shard.clone()),
            }
        }
        let place = |name: &ShardName| {
            index(
                shards
                    .iter()
                    .position(|shard| shard.name == *name)
                    .unwrap_or(0),
            )
        };
        let places: Vec<u16> = next.shards.iter().map(|shard| place(&shard.name)).collect();
        let next = next.ranges.with_owners(|old| places[usize::from(old)]);
        let handover = Some(Handover {
            phase: HandoverPhase::DualPublish,
            next,
        });
        Self {
            epoch,
            shards,
            ranges: self.ranges.clone(),
            handover,
        }
    }

    /// Sends clients to the new owners, once every forwarder publishes to both.
    #[must_use]
    pub fn announce(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        if let Some(handover) = &mut self.handover {
            handover.phase = HandoverPhase::Announce;
        }
        self
    }

    /// Sends clients back to the old owners; committing then ends where the change began.
    #[must_use]
    pub fn abort(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        if let Some(handover) = &mut self.handover {
            std::mem::swap(&mut self.ranges, &mut handover.next);
            handover.phase = HandoverPhase::Announce;
        }
        self
    }

    /// Ends the change: only the new owners get their assets' events, and shards without a range go.
    #[must_use]
    pub fn commit(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        if let Some(handover) = self.handover.take() {
            self.ranges = handover.next;
            self.drop_unused_shards();
        }
        self
    }

    fn drop_unused_shards(&mut self) {
        let used = |place: usize| self.ranges.any_of(index(place));
        let places: Vec<usize> = (0..self.shards.len())
            .filter(|&place| used(place))
            .collect();
        let place = |old: u16| {
            index(
                places
                    .iter()
                    .position(|&kept| kept == usize::from(old))
                    .unwrap_or(0),
            )
        };
        self.ranges = self.ranges.with_owners(place);
        self.shards = places
            .iter()
            .map(|&kept| self.shards[kept].clone())
            .collect();
    }

    fn client_ranges(&self) -> &Ranges {
        match &self.handover {
            Some(Handover {
                phase: HandoverPhase::Announce,
                next,
            }) => next,
            _ => &self.ranges,
        }
    }

    /// The shard that has this key.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> &Shard {
        &self.shards[self.index_of(KeyHash::of(key))]
    }

    /// A digest of where clients are sent.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        Assignment::of(self)
    }

    /// Number of ranges.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.client_ranges().starts().len()
    }

    /// Each shard's share of all hashes, 0 to 1, in the order of [`Self::shards`].
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share for people, not a boundary"
    )]
    pub fn shares(&self) -> Vec<f64> {
        let ranges = self.client_ranges();
        let mut shares = vec![0.0; self.shards.len()];
        for (range, &owner) in ranges.owners().iter().enumerate() {
            let width = (ranges.last_of(range) - ranges.starts()[range]) as f64 + 1.0;
            shares[usize::from(owner)] += width / 2f64.powi(64);
        }
        shares
    }

    /// What changes hands on the way to `next`, in the order of the hashes.
    #[must_use]
    pub fn moves_to(&self, next: &Self) -> Vec<Move> {
        let (before, after) = (self.client_ranges(), next.client_ranges());
        let mut starts = [before.starts(), after.starts()].concat();
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
