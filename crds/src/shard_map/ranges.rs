//! Who owns which part of the hash space.

use super::KeyHash;

/// Bits of a hash that say where to look for its range: a slot for each of a thousand parts, so that in a ring of eight shards
/// it is one of two ranges, and all slots together stay in a processor's nearest cache.
const SLOT_BITS: u32 = 10;

/// Every possible hash in exactly one range, every range with exactly one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges {
    /// First hash of each range, ascending from 0.
    starts: Vec<u64>,
    /// Index of each range's shard.
    owners: Vec<u16>,
    /// The range that each slot's first hash is in, and behind them the last range.
    slots: Vec<u32>,
}

impl Ranges {
    /// `starts` ascend from 0, and each has an owner.
    pub(super) fn new(starts: Vec<u64>, owners: Vec<u16>) -> Self {
        let range_of = |hash: u64| starts.partition_point(|&start| start <= hash) - 1;
        let firsts = (0..1u64 << SLOT_BITS).map(|slot| slot << (u64::BITS - SLOT_BITS));
        let slots = firsts.chain([u64::MAX]).map(|first| {
            // More ranges than that do not fit into memory.
            u32::try_from(range_of(first)).unwrap_or(u32::MAX)
        });
        let slots = slots.collect();
        Self {
            starts,
            owners,
            slots,
        }
    }

    pub(super) fn starts(&self) -> &[u64] {
        &self.starts
    }

    pub(super) fn owners(&self) -> &[u16] {
        &self.owners
    }

    pub(super) fn owner_of(&self, hash: KeyHash) -> u16 {
        // Ten bits fit.
        let slot = usize::try_from(hash.0 >> (u64::BITS - SLOT_BITS)).unwrap_or_default();
        let (first, last) = (self.slots[slot] as usize, self.slots[slot + 1] as usize);
        let further = &self.starts[first + 1..=last];
        self.owners[first + further.partition_point(|&start| start <= hash.0)]
    }

    /// Whether a shard has any range.
    pub(super) fn any_of(&self, owner: u16) -> bool {
        self.owners.contains(&owner)
    }

    pub(super) fn last_of(&self, range: usize) -> u64 {
        self.starts
            .get(range + 1)
            .map_or(u64::MAX, |start| start - 1)
    }

    pub(super) fn with_owners(&self, owner: impl Fn(u16) -> u16) -> Self {
        Self {
            owners: self.owners.iter().map(|&old| owner(old)).collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plainly(ranges: &Ranges, hash: u64) -> u16 {
        let starts = ranges.starts.iter().zip(&ranges.owners);
        let owner = starts.take_while(|(start, _)| **start <= hash).last();
        *owner.unwrap().1
    }

    proptest! {
        #[test]
        fn a_hash_has_the_owner_of_the_last_range_that_starts_before_it(
            mut starts: Vec<u64>,
            close in proptest::collection::vec(0u64..1 << 56, 0..20),
            hashes: Vec<u64>,
        ) {
            // Many ranges in few slots too.
            starts.extend(close);
            starts.push(0);
            starts.sort_unstable();
            starts.dedup();
            let owners = (0..).take(starts.len()).collect();
            let ranges = Ranges::new(starts.clone(), owners);
            let near = starts.iter().flat_map(|&start| [start.wrapping_sub(1), start, start.wrapping_add(1)]);
            for hash in hashes.into_iter().chain(near).chain([0, u64::MAX]) {
                prop_assert_eq!(ranges.owner_of(KeyHash(hash)), plainly(&ranges, hash));
            }
        }
    }
}
