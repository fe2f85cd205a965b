//! The `id:` of an event for a client whose assets come in no common sequence.
//!
//! Through NATS each asset's events come in order, and two assets' events in any. So what a client has seen is a position
//! up to which *all* its assets are complete, and for each asset that has come further, how far. Written
//! `<position>;<asset>/<partition>/<offset>,...`, an asset by the 16 hexadecimal digits of its hash, in the order of
//! partitions and assets, each with the offset of its last event seen. A client of one asset has a plain
//! [`Position`]: whatever is below the asset's last event is of no interest to it. So ids of either feed are valid at
//! the other.

use std::collections::BTreeMap;
use std::fmt;

use ofa_crds::KeyHash;

use super::position::{Position, PositionError};
use crate::selection::Selection;

/// An asset, in an id: 64 bits of its SHA-256, as it is routed by. A thousand assets share one by chance once in 10^13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AssetTag(u64);

impl AssetTag {
    /// The tag of an asset.
    #[must_use]
    pub(super) fn of(asset: &str) -> Self {
        Self(KeyHash::of(asset.as_bytes()).0)
    }
}

/// The tags of all assets of a selection, in its order.
#[must_use]
pub(super) fn tags(selection: &Selection) -> Vec<AssetTag> {
    selection
        .assets()
        .map(|asset| AssetTag::of(asset))
        .collect()
}

/// What a client has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Complete for all assets.
    base: Position,
    /// The offset that comes next where an asset has come further.
    beyond: BTreeMap<(u32, AssetTag), u64>,
}

impl From<Position> for Seen {
    fn from(base: Position) -> Self {
        Self {
            base,
            beyond: BTreeMap::new(),
        }
    }
}

impl Seen {
    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// When the text is anything else.
    pub(super) fn parse(text: &str) -> Result<Self, PositionError> {
        let (base, rest) = text
            .split_once(';')
            .map_or((text, None), |(base, rest)| (base, Some(rest)));
        let mut seen = Self::from(Position::parse(base)?);
        for part in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (partition, asset, next) = entry(part).ok_or(PositionError)?;
            seen.raise(asset, partition, next);
        }
        if seen.to_string() == text {
            Ok(seen)
        } else {
            Err(PositionError)
        }
    }

    /// The same with another place up to which all assets are complete.
    #[must_use]
    pub(super) fn with_base(self, base: Position) -> Self {
        Self { base, ..self }
    }

    /// Up to where all assets are complete.
    #[must_use]
    pub(super) fn base(&self) -> &Position {
        &self.base
    }

    /// The offset that comes next of an asset on a partition.
    #[must_use]
    pub(super) fn next(&self, asset: AssetTag, partition: u32) -> u64 {
        let own = self.beyond.get(&(partition, asset)).copied();
        own.unwrap_or(0).max(self.base.next(partition))
    }

    /// The highest offset that comes next on a partition, whatever the asset.
    #[must_use]
    pub(super) fn furthest(&self, partition: u32) -> u64 {
        let own = self.of_partition(partition).map(|(_, next)| next).max();
        own.unwrap_or(0).max(self.base.next(partition))
    }

    /// How many partitions are named.
    #[must_use]
    pub(super) fn partitions(&self) -> u32 {
        let last = self.beyond.keys().next_back();
        last.map_or(0, |(partition, _)| partition + 1)
            .max(self.base.partitions())
    }

    /// Everything of an asset below `next` has been seen on this partition.
    pub(super) fn raise(&mut self, asset: AssetTag, partition: u32, next: u64) {
        if next > self.next(asset, partition) {
            self.beyond.insert((partition, asset), next);
        }
    }

    /// Everything below `next` has been seen on this partition, of all assets.
    pub(super) fn raise_all(&mut self, partition: u32, next: u64) {
        self.base.advance(partition, next);
        let base = self.base.next(partition);
        self.beyond
            .retain(|(it, _), next| *it != partition || *next > base);
    }

    /// Takes in an event that comes in the order of its partition, with all that the client watches before it.
    /// Whether it is new. `asset` is asked only where an asset has come further than the position.
    pub(super) fn take_in_order(
        &mut self,
        asset: impl FnOnce() -> AssetTag,
        partition: u32,
        offset: u64,
    ) -> bool {
        let next = match self.beyond.is_empty() {
            true => self.base.next(partition),
            false => self.next(asset(), partition),
        };
        let is_new = offset >= next;
        self.raise_all(partition, offset.saturating_add(1));
        is_new
    }

    /// Forgets what is said of other assets than these.
    pub(super) fn keep(&mut self, assets: &[AssetTag]) {
        self.beyond.retain(|(_, asset), _| assets.contains(asset));
    }

    /// Puts what is common to all of `assets`, which are all that the client watches, into the position: the id stays
    /// short.
    pub(super) fn settle(&mut self, assets: &[AssetTag], partition: u32) {
        // While one of them has come no further than the position, nothing can be put there.
        if self.of_partition(partition).count() < assets.len() {
            return;
        }
        let common = assets
            .iter()
            .map(|asset| self.next(*asset, partition))
            .min();
        self.raise_all(partition, common.unwrap_or(0));
    }

    fn of_partition(&self, partition: u32) -> impl Iterator<Item = (AssetTag, u64)> {
        let all = (partition, AssetTag(0))..=(partition, AssetTag(u64::MAX));
        let entries = self.beyond.range(all);
        entries.map(|((_, asset), next)| (*asset, *next))
    }
}

/// `<asset>/<partition>/<offset>`, with the offset after.
fn entry(text: &str) -> Option<(u32, AssetTag, u64)> {
    let (asset, place) = text.split_once('/')?;
    let (partition, offset) = place.split_once('/')?;
    let partition: u32 = partition.parse().ok()?;
    let next = offset.parse::<u64>().ok()?.checked_add(1)?;
    let asset = u64::from_str_radix(asset, 16).ok()?;
    Position::has_partition(partition).then_some((partition, AssetTag(asset), next))
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        let mut separator = ';';
        for ((partition, AssetTag(asset)), next) in &self.beyond {
            write!(f, "{separator}{asset:016x}/{partition}/{}", next - 1)?;
            separator = ',';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAGS: [AssetTag; 3] = [AssetTag(1), AssetTag(2), AssetTag(u64::MAX)];

    fn seen() -> Seen {
        Seen::from(Position::new("t", vec![0, 0]))
    }

    #[test]
    fn a_client_of_one_asset_has_a_plain_position() {
        let mut seen = seen();
        seen.raise(TAGS[0], 1, 42);
        seen.settle(&TAGS[..1], 1);
        assert_eq!(seen.to_string(), "t/1/41");
        assert!(Position::parse(&seen.to_string()).is_ok());
    }

    #[test]
    fn an_asset_that_is_ahead_is_named() {
        let mut seen = seen();
        seen.raise_all(0, 10);
        seen.raise(TAGS[0], 0, 42);
        seen.settle(&TAGS[..2], 0);
        assert_eq!(seen.to_string(), "t/0/9;0000000000000001/0/41");
        seen.raise(TAGS[1], 0, 40);
        seen.settle(&TAGS[..2], 0);
        assert_eq!(seen.to_string(), "t/0/39;0000000000000001/0/41");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in [
            "",
            ";",
            "t;",
            "t;1/0/1",
            "t/0/5;0000000000000001/0/5",
            "t;0000000000000001/0/1,",
            "t;0000000000000002/0/1,0000000000000001/0/1",
            "t;0000000000000001/0/18446744073709551615",
            "t;0000000000000001/4000000000/1",
            "t;000000000000000A/0/1",
            "t;+000000000000001/0/1",
        ] {
            assert_eq!(Seen::parse(bad), Err(PositionError), "{bad:?}");
        }
    }

    #[test]
    fn real_names_have_tags_of_their_own() {
        assert_ne!(AssetTag::of("CNC-1"), AssetTag::of("CNC-2"));
    }

    proptest! {
        /// Whatever comes in whatever order, each asset resumes exactly after what it had, and the text says it.
        #[test]
        fn each_asset_resumes_after_its_own_last_event(
            steps in proptest::collection::vec((0usize..3, 0u32..2, 1u64..50), 0..80),
        ) {
            let mut expected = [[0u64; 2]; 3];
            let mut seen = seen();
            for (asset, partition, step) in steps {
                let next = &mut expected[asset][partition as usize];
                *next += step;
                seen.raise(TAGS[asset], partition, *next);
                seen.settle(&TAGS, partition);
                let read = Seen::parse(&seen.to_string()).unwrap();
                for (asset, of_asset) in expected.iter().enumerate() {
                    for (partition, next) in (0..).zip(of_asset) {
                        prop_assert_eq!(read.next(TAGS[asset], partition), *next);
                        prop_assert!(read.base().next(partition) <= *next);
                        prop_assert!(read.furthest(partition) >= *next);
                    }
                }
            }
        }

        /// A client that comes to the feed that has all assets in one sequence gets what it lacks, and nothing twice.
        #[test]
        fn one_that_comes_to_the_topics_order_gets_what_it_lacks(
            events in proptest::collection::vec(0usize..3, 0..60),
            had in (0u64..60, 0u64..60, 0u64..60),
        ) {
            let had = [had.0, had.1, had.2];
            let mut seen = seen();
            for (tag, next) in TAGS.iter().zip(had) {
                seen.raise(*tag, 0, next);
            }
            seen.settle(&TAGS, 0);
            let mut seen = Seen::parse(&seen.to_string()).unwrap();
            let from = seen.base().next(0);
            for (offset, asset) in (0u64..).zip(events).skip_while(|(offset, _)| *offset < from) {
                let is_new = seen.take_in_order(|| TAGS[asset], 0, offset);
                prop_assert_eq!(is_new, offset >= had[asset]);
                prop_assert_eq!(seen.base().next(0), offset + 1);
                // The id said with this event keeps what is still ahead.
                prop_assert_eq!(Seen::parse(&seen.to_string()).unwrap(), seen.clone());
            }
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in "(t;)?.{0,60}") {
            let _ = Seen::parse(&text);
        }
    }
}
