//! The offset of each asset's event before, in a table of fixed size.
//!
//! A client compares it with what it saw last, and so notices every event it missed. The table forgets
//! rather than grows: an asset whose place was taken by another is "not known", never wrong.

/// Places in the table: 16 bytes each, so 16 MiB once all are touched, whatever the number of assets.
const PLACES: usize = 1 << 20;

/// Marks a partition's assignment to this forwarder, so that what was learned in an earlier one does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tenure(pub(crate) u64);

/// Last offset of each asset by partition and tenure.
pub(crate) struct PrevOffsets {
    places: Vec<(u64, i64)>,
}

impl PrevOffsets {
    pub(crate) fn new() -> Self {
        // Zeroed pages come from the kernel when first touched: a small installation pays for what it uses.
        Self {
            places: vec![(0, 0); PLACES],
        }
    }

    /// Fetches what is known of these assets from memory. Side by side they take as long as one of them alone would take
    /// when it is needed, and for most assets of a large plant nothing of it is in the processor's caches.
    pub(crate) fn fetch(&self, assets: impl Iterator<Item = u64>) {
        let seen = assets.fold(0, |seen, asset| seen ^ self.places[place(asset)].0);
        std::hint::black_box(seen);
    }

    /// Notes an event's offset and returns the asset's offset before it, if it is known.
    pub(crate) fn replace(&mut self, asset: u64, tenure: Tenure, offset: i64) -> Option<i64> {
        let tag = tag(asset, tenure);
        let place = &mut self.places[place(asset)];
        let known = (place.0 == tag && place.1 < offset).then_some(place.1);
        *place = (tag, offset);
        known
    }
}

fn place(asset: u64) -> usize {
    usize::try_from(asset % (PLACES as u64)).unwrap_or(0)
}

/// Mixes an asset's hash with the tenure; never 0, which marks an empty place.
fn tag(asset: u64, tenure: Tenure) -> u64 {
    // Odd constant of Fibonacci hashing: spreads consecutive tenures over all bits.
    (asset ^ tenure.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
}

#[cfg(test)]
mod tests {
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
        let rival = 7 + PLACES as u64;
        table.replace(7, Tenure(0), 10);
        table.replace(rival, Tenure(0), 11);
        assert_eq!(table.replace(7, Tenure(0), 12), None);
    }
}
