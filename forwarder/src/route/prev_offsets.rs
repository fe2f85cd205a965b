//! The offset of each asset's event before, in a table of bounded size.
//!
//! A client compares it with what it saw last, and so notices every event it missed. The table grows with the assets up to
//! its bound, and from there on forgets: an asset whose place was taken by others is "not known", never wrong. What was learned in
//! earlier tenures is forgotten only so, too.

/// Assets of a bucket: what they take is one line of the processor's cache.
const WAYS: usize = 4;

/// Buckets in the beginning, and at most: 64 bytes each, so from 16 KiB to 16 MiB. A table as small as the assets allow
/// stays in the processor's caches, and so do the addresses of its pages.
const BUCKETS: (usize, usize) = (1 << 8, 1 << 18);

/// Marks a partition's assignment to this forwarder, so that what was learned in an earlier one does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tenure(pub(crate) u64);

/// Tags of assets, 0 where there is none, and their last offsets. Those that came last stand first.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    tags: [u64; WAYS],
    offsets: [i64; WAYS],
}

impl Bucket {
    /// Where a tag stands. Without a branch for each place: which it is cannot be foreseen.
    fn find(&self, tag: u64) -> Option<usize> {
        let tags = self.tags.iter().enumerate();
        let found = tags.fold(0, |found, (at, it)| found | u32::from(*it == tag) << at);
        (found != 0).then(|| found.trailing_zeros() as usize)
    }

    /// Puts an asset before all others; returns whether there was a place left for it.
    fn push(&mut self, tag: u64, offset: i64) -> bool {
        let is_free = self.tags[WAYS - 1] == 0;
        self.tags.rotate_right(1);
        self.offsets.rotate_right(1);
        (self.tags[0], self.offsets[0]) = (tag, offset);
        is_free
    }
}

/// Last offset of each asset by partition and tenure.
pub(crate) struct PrevOffsets {
    /// As many as a power of two.
    buckets: Vec<Bucket>,
    /// Places that are taken.
    used: usize,
}

impl PrevOffsets {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS.0],
            used: 0,
        }
    }

    /// Fetches what is known of these assets from memory. Side by side they take as long as one of them alone would take
    /// when it is needed, and for most assets of a large plant nothing of it is in the processor's caches.
    pub(crate) fn fetch(&self, assets: impl Iterator<Item = u64>) {
        let seen = assets.fold(0, |seen, asset| {
            seen ^ self.buckets[self.index(asset)].tags[0]
        });
        std::hint::black_box(seen);
    }

    /// Notes an event's offset and returns the asset's offset before it, if it is known.
    pub(crate) fn replace(&mut self, asset: u64, tenure: Tenure, offset: i64) -> Option<i64> {
        let tag = tag(asset, tenure);
        let index = self.index(tag);
        let bucket = &mut self.buckets[index];
        if let Some(at) = bucket.find(tag) {
            let before = std::mem::replace(&mut bucket.offsets[at], offset);
            return (before < offset).then_some(before);
        }
        if bucket.push(tag, offset) {
            self.used += 1;
            self.grow_when_crowded();
        }
        None
    }

    /// The bucket of an asset, and of its tags.
    fn index(&self, asset: u64) -> usize {
        usize::try_from(asset & (self.buckets.len() as u64 - 1)).unwrap_or(0)
    }

    /// Up to an eighth of the places taken, an asset in five hundred is in a bucket with more assets than places: those that have
    /// events in turns forget each other.
    fn grow_when_crowded(&mut self) {
        let buckets = self.buckets.len();
        if self.used <= buckets * WAYS / 8 || buckets >= BUCKETS.1 {
            return;
        }
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::default(); buckets * 2]);
        for bucket in &old {
            let places = bucket.tags.iter().zip(&bucket.offsets).rev();
            for (&tag, &offset) in places.filter(|(tag, _)| **tag != 0) {
                let index = self.index(tag);
                self.buckets[index].push(tag, offset);
            }
        }
    }
}

/// Mixes an asset's hash with the tenure, in its upper half only: the lower one says where the bucket is. Never 0, which marks an
/// empty place.
fn tag(asset: u64, tenure: Tenure) -> u64 {
    // Odd constant of Fibonacci hashing: spreads consecutive tenures over all bits.
    let mixed = tenure.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) & (u64::MAX << u32::BITS);
    (asset ^ mixed).max(1)
}

#[cfg(test)]
mod tests {
    use ofa_crds::KeyHash;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_offset_before_is_known_within_a_tenure_only() {
        let mut table = PrevOffsets::new();
        assert_eq!(table.replace(7, Tenure(1), 10), None);
        assert_eq!(table.replace(7, Tenure(1), 12), Some(10));
        assert_eq!(table.replace(8, Tenure(1), 13), None);
        assert_eq!(table.replace(7, Tenure(2), 14), None);
        assert_eq!(table.replace(7, Tenure(2), 15), Some(14));
    }

    #[test]
    fn reading_again_from_an_earlier_offset_claims_nothing() {
        let mut table = PrevOffsets::new();
        table.replace(7, Tenure(1), 10);
        table.replace(7, Tenure(1), 12);
        assert_eq!(table.replace(7, Tenure(1), 10), None);
    }

    #[test]
    fn an_asset_whose_place_is_taken_is_not_known() {
        let mut table = PrevOffsets::new();
        let rival = |number: u64| 7 + (number << 40);
        table.replace(7, Tenure(0), 10);
        for number in 1..WAYS as u64 {
            table.replace(rival(number), Tenure(0), 11);
        }
        assert_eq!(table.replace(7, Tenure(0), 12), Some(10));
        table.replace(rival(WAYS as u64), Tenure(0), 13);
        assert_eq!(table.replace(7, Tenure(0), 14), None);
    }

    #[test]
    fn what_is_known_stays_known_while_the_table_grows() {
        let mut table = PrevOffsets::new();
        // As even as a hash.
        let asset = |number: i64| KeyHash::of(&number.to_be_bytes()).0;
        for number in 0..100_000 {
            table.replace(asset(number), Tenure(3), number);
        }
        let mut known =
            |number: &i64| table.replace(asset(*number), Tenure(3), i64::MAX) == Some(*number);
        let known = (0..100_000).filter(|it| known(it)).count();
        assert!(known > 99_000, "{known}");
    }

    proptest! {
        #[test]
        fn what_is_known_is_true(
            events in proptest::collection::vec((0u64..3000, 0u64..3), 1..6000),
        ) {
            let mut table = PrevOffsets::new();
            let mut truth = std::collections::HashMap::new();
            for (offset, (asset, tenure)) in (0..).zip(events) {
                let before = truth.insert((asset, tenure), offset);
                let known = table.replace(asset << 3, Tenure(tenure), offset);
                prop_assert!(known.is_none() || known == before);
            }
        }
    }
}
