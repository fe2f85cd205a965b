//! The last position of each asset: what is new, what was seen, what was missed.

use std::collections::HashMap;

use ofa_crds::Cursor;

/// What an event's position says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The next one.
    Fresh,
    /// A new one, but the asset's event at `last` (and perhaps some since `first`) was missed.
    AfterGap {
        /// First offset that may be missing.
        first: u64,
        /// Last offset that is missing.
        last: u64,
    },
    /// A new one after an interruption, and nothing tells whether the asset had events between.
    AfterPossibleGap {
        /// First offset that may be missing.
        first: u64,
        /// Last offset that may be missing.
        last: u64,
    },
    /// Not newer than what was seen.
    Stale,
}

/// The last position seen of every asset, on every partition it appeared on.
#[derive(Debug, Default)]
pub struct Positions {
    assets: HashMap<String, Vec<Seen>>,
    interruptions: u64,
    /// Whether events of assets that were never seen may have been missed too.
    unseen_may_be_missed: bool,
}

#[derive(Debug)]
struct Seen {
    topic: String,
    partition: u32,
    offset: u64,
    /// How many interruptions there had been.
    interruptions: u64,
}

impl Positions {
    /// Notes that anything may have been missed from here on, until an event says otherwise.
    pub fn interrupted(&mut self) {
        self.interruptions += 1;
        self.unseen_may_be_missed = true;
    }

    /// Notes that events of the assets seen so far may have been missed: they come from elsewhere now.
    pub fn moved(&mut self) {
        self.interruptions += 1;
    }

    /// Takes in an event of `asset`. The first one on a partition is no gap, since nothing is known before it,
    /// unless there was an interruption: then whatever came before may have been missed in it.
    pub fn accept(&mut self, asset: &str, cursor: &Cursor, prev: Option<u64>) -> Verdict {
        let interruptions = self.interruptions;
        let Some(seen) = self.find_mut(asset, cursor) else {
            self.insert(asset, cursor);
            return self.first_sight(cursor, prev);
        };
        if cursor.offset <= seen.offset {
            return Verdict::Stale;
        }
        let first = seen.offset + 1;
        let verdict = match prev {
            Some(prev) if prev > seen.offset => Verdict::AfterGap { first, last: prev },
            None if seen.interruptions != interruptions && cursor.offset > first => {
                Verdict::AfterPossibleGap {
                    first,
                    last: cursor.offset - 1,
                }
            }
            _ => Verdict::Fresh,
        };
        seen.offset = cursor.offset;
        seen.interruptions = interruptions;
        verdict
    }

    fn first_sight(&self, cursor: &Cursor, prev: Option<u64>) -> Verdict {
        match prev.or(cursor.offset.checked_sub(1)) {
            Some(last) if self.unseen_may_be_missed => Verdict::AfterPossibleGap { first: 0, last },
            _ => Verdict::Fresh,
        }
    }

    /// Whether an event is certain to be the asset's next, or is one already seen.
    #[must_use]
    pub fn is_settled(&self, asset: &str, cursor: &Cursor, prev: Option<u64>) -> bool {
        let Some(seen) = self.find(asset, cursor) else {
            return false;
        };
        cursor.offset <= seen.offset + 1 || prev.is_some_and(|prev| prev <= seen.offset)
    }

    fn find(&self, asset: &str, cursor: &Cursor) -> Option<&Seen> {
        self.assets
            .get(asset)?
            .iter()
            .find(|seen| seen.is_on(cursor))
    }

    fn find_mut(&mut self, asset: &str, cursor: &Cursor) -> Option<&mut Seen> {
        self.assets
            .get_mut(asset)?
            .iter_mut()
            .find(|seen| seen.is_on(cursor))
    }

    fn insert(&mut self, asset: &str, cursor: &Cursor) {
        let seen = Seen {
            topic: cursor.topic.clone(),
            partition: cursor.partition,
            offset: cursor.offset,
            interruptions: self.interruptions,
        };
        self.assets.entry(asset.to_owned()).or_default().push(seen);
    }
}

impl Seen {
    fn is_on(&self, cursor: &Cursor) -> bool {
        self.partition == cursor.partition && self.topic == cursor.topic
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(partition: u32, offset: u64) -> Cursor {
        Cursor {
            topic: "t".into(),
            partition,
            offset,
        }
    }

    #[test]
    fn the_first_event_is_no_gap_whatever_was_before() {
        let mut positions = Positions::default();
        assert_eq!(positions.accept("a", &at(0, 50), Some(40)), Verdict::Fresh);
        assert_eq!(positions.accept("b", &at(0, 60), Some(40)), Verdict::Fresh);
        assert_eq!(positions.accept("a", &at(1, 10), Some(5)), Verdict::Fresh);
    }

    /// The node may have died with an asset's first events before any of them was read.
    #[test]
    fn what_an_interruption_has_taken_of_an_asset_never_seen_is_a_possible_gap() {
        let mut positions = Positions::default();
        positions.interrupted();
        let up_to = |last| Verdict::AfterPossibleGap { first: 0, last };
        assert_eq!(positions.accept("a", &at(0, 50), Some(40)), up_to(40));
        assert_eq!(positions.accept("b", &at(0, 60), None), up_to(59));
        assert_eq!(positions.accept("c", &at(1, 0), None), Verdict::Fresh);
        assert_eq!(positions.accept("a", &at(0, 61), Some(50)), Verdict::Fresh);
    }

    #[test]
    fn a_later_previous_offset_shows_exactly_what_was_missed() {
        let mut positions = Positions::default();
        positions.accept("a", &at(0, 50), None);
        let gap = Verdict::AfterGap {
            first: 51,
            last: 60,
        };
        assert_eq!(positions.accept("a", &at(0, 70), Some(60)), gap);
        assert_eq!(positions.accept("a", &at(0, 80), Some(70)), Verdict::Fresh);
    }

    #[test]
    fn without_previous_offset_only_an_interruption_makes_a_possible_gap() {
        let mut positions = Positions::default();
        positions.accept("a", &at(0, 50), None);
        assert_eq!(positions.accept("a", &at(0, 70), None), Verdict::Fresh);
        positions.interrupted();
        let possible = Verdict::AfterPossibleGap {
            first: 71,
            last: 89,
        };
        assert_eq!(positions.accept("a", &at(0, 90), None), possible);
        assert_eq!(positions.accept("a", &at(0, 99), None), Verdict::Fresh);
        positions.interrupted();
        assert_eq!(positions.accept("a", &at(0, 100), None), Verdict::Fresh);
    }

    /// Events of two assets on two partitions, each asset's offsets ascending.
    fn log() -> impl Strategy<Value = Vec<(String, Cursor, Option<u64>)>> {
        proptest::collection::vec((0..2u8, 0..2u32), 1..60).prop_map(|choices| {
            let mut next = [0; 2];
            let mut last: HashMap<(u8, u32), u64> = HashMap::new();
            let event = |(asset, partition): (u8, u32)| {
                let offset = &mut next[partition as usize];
                let cursor = at(partition, *offset);
                let prev = last.insert((asset, partition), *offset);
                *offset += 1;
                (format!("asset-{asset}"), cursor, prev)
            };
            choices.into_iter().map(event).collect()
        })
    }

    proptest! {
        #[test]
        fn repeats_of_any_kind_are_dropped_and_nothing_else(
            log in log(),
            rewinds in proptest::collection::vec((0..60usize, 0..60usize), 0..8),
        ) {
            let mut positions = Positions::default();
            let mut sent: Vec<usize> = Vec::new();
            let mut rewinds = rewinds.into_iter();
            for index in 0..log.len() {
                sent.push(index);
                if let Some((at, back)) = rewinds.next() && at % 3 == 0 {
                    sent.extend(index.saturating_sub(back)..=index);
                }
            }
            let mut fresh = Vec::new();
            for index in sent {
                let (asset, cursor, prev) = &log[index];
                match positions.accept(asset, cursor, *prev) {
                    Verdict::Fresh => fresh.push(index),
                    Verdict::Stale => {}
                    other => prop_assert!(false, "{other:?} though nothing is missing"),
                }
            }
            prop_assert_eq!(fresh, (0..log.len()).collect::<Vec<_>>());
        }

        #[test]
        fn every_missing_event_lies_in_an_announced_gap(log in log(), missing in proptest::collection::vec(any::<bool>(), 60)) {
            let mut positions = Positions::default();
            let mut seen: HashMap<(String, u32), u64> = HashMap::new();
            let mut owed: HashMap<(String, u32), Vec<u64>> = HashMap::new();
            for (index, (asset, cursor, prev)) in log.iter().enumerate() {
                let key = (asset.clone(), cursor.partition);
                if missing[index] {
                    if seen.contains_key(&key) {
                        owed.entry(key).or_default().push(cursor.offset);
                    }
                    continue;
                }
                let owed = owed.remove(&key).unwrap_or_default();
                match positions.accept(asset, cursor, *prev) {
                    Verdict::Fresh => prop_assert!(owed.is_empty(), "silent loss of {owed:?}"),
                    Verdict::AfterGap { first, last } => {
                        prop_assert_eq!(Some(&last), owed.last());
                        prop_assert_eq!(first, seen[&key] + 1);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
                seen.insert(key, cursor.offset);
            }
        }
    }
}
