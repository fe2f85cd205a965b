//! A set of offsets: one bit each, in blocks, since they come in long runs.

use std::collections::BTreeMap;

/// Offsets of a block: 8 KiB of bits.
const BLOCK: u64 = 65_536;

#[derive(Debug, Default)]
pub(super) struct Offsets(BTreeMap<u64, Box<[u64]>>);

impl Offsets {
    /// Adds an offset. Returns whether it is new.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        let (word, bit) = place(offset);
        let block = self.0.entry(offset / BLOCK).or_insert_with(|| {
            // 64 offsets a word.
            vec![0; 1024].into_boxed_slice()
        });
        let is_new = block[word] & bit == 0;
        block[word] |= bit;
        is_new
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        let (word, bit) = place(offset);
        self.0
            .get(&(offset / BLOCK))
            .is_some_and(|block| block[word] & bit != 0)
    }
}

/// Word and bit in a block; the remainder is below 65,536, so nothing is cut off.
#[allow(clippy::cast_possible_truncation)]
fn place(offset: u64) -> (usize, u64) {
    (((offset % BLOCK) / 64) as usize, 1 << (offset % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(offsets in proptest::collection::vec(0..200_000u64, 0..200), probes in proptest::collection::vec(0..200_000u64, 50)) {
            let (mut ours, mut plain) = (Offsets::default(), HashSet::new());
            for &offset in &offsets {
                prop_assert_eq!(ours.insert(offset), plain.insert(offset));
            }
            for probe in probes.into_iter().chain(offsets) {
                prop_assert_eq!(ours.contains(probe), plain.contains(&probe));
            }
        }
    }
}
