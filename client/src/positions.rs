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
    partitions: HashMap<u32, Vec<Known>>,
    interruptions: u64,
    /// Whether events of assets that were never seen may have been missed too.
    unseen_may_be_missed: bool,
}

/// What is known of a partition, whatever the asset.
#[derive(Debug)]
struct Known {
    topic: String,
    /// Events below are not wanted: the subscription begins here.
    begin: u64,
    /// Every event below was seen.
    complete: Option<u64>,
    /// How many interruptions there had been by then.
    interruptions: u64,
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

    /// How many interruptions there were.
    #[must_use]
    pub fn interruptions(&self) -> u64 {
        self.interruptions
    }

    /// The subscription begins here: what lies before on this partition was seen by somebody else.
    pub fn begin(&mut self, topic: &str, partition: u32, next: u64) {
        let known = self.known_mut(topic, partition);
        known.begin = known.begin.max(next);
    }

    /// Every event below `next` on this partition has been taken in, or was announced as missing; `interruptions` is
    /// what [`Self::interruptions`] said when that was found out, or less if it does not prove that the connection
    /// delivers.
    pub fn complete(&mut self, topic: &str, partition: u32, next: u64, interruptions: u64) {
        let known = self.known_mut(topic, partition);
        if known.complete.is_none_or(|complete| next >= complete) {
            known.complete = Some(next);
            known.interruptions = interruptions;
        }
    }

    /// What an event of `asset` would be. Where nothing is known of the partition, the first one is no gap unless there
    /// was an interruption: then whatever came before may have been missed in it.
    #[must_use]
    pub fn judge(&self, asset: &str, cursor: &Cursor, prev: Option<u64>) -> Verdict {
        let seen = self.find(asset, cursor);
        let known = self.known(cursor);
        let is_stale = seen.is_some_and(|seen| cursor.offset <= seen.offset);
        if is_stale || known.is_some_and(|known| cursor.offset < known.begin) {
            return Verdict::Stale;
        }
        let Some((first, interruptions)) = latest(seen, known) else {
            return self.first_sight(cursor, prev);
        };
        match prev {
            Some(prev) if prev >= first => Verdict::AfterGap { first, last: prev },
            None if interruptions != self.interruptions && cursor.offset > first => {
                Verdict::AfterPossibleGap {
                    first,
                    last: cursor.offset - 1,
                }
            }
            _ => Verdict::Fresh,
        }
    }

    fn first_sight(&self, cursor: &Cursor, prev: Option<u64>) -> Verdict {
        match prev.or(cursor.offset.checked_sub(1)) {
            Some(last) if self.unseen_may_be_missed => Verdict::AfterPossibleGap { first: 0, last },
            _ => Verdict::Fresh,
        }
    }

    /// Takes in an event of `asset` that has just arrived.
    pub fn accept(&mut self, asset: &str, cursor: &Cursor, prev: Option<u64>) -> Verdict {
        self.accept_late(asset, cursor, prev, self.interruptions)
    }

    /// Takes in an event of `asset` that arrived when [`Self::interruptions`] was `arrived_at`: it proves nothing about
    /// a connection that was made since.
    pub fn accept_late(
        &mut self,
        asset: &str,
        cursor: &Cursor,
        prev: Option<u64>,
        arrived_at: u64,
    ) -> Verdict {
        let verdict = self.judge(asset, cursor, prev);
        if verdict != Verdict::Stale {
            self.note(asset, cursor, arrived_at);
        }
        verdict
    }

    /// Takes in an event of `asset` of which is known that nothing is missing before it, since it was asked for
    /// together with all before. False if it is not newer than what was seen.
    pub fn fill(&mut self, asset: &str, cursor: &Cursor) -> bool {
        if self.judge(asset, cursor, Some(0)) == Verdict::Stale {
            return false;
        }
        let before = latest(self.find(asset, cursor), self.known(cursor));
        // That it could be asked for says nothing about the connection.
        let interruptions = before.map_or(0, |(_, interruptions)| interruptions);
        self.note(asset, cursor, interruptions);
        true
    }

    /// The first offset of an asset on a partition of which nothing is known.
    #[must_use]
    pub fn first_unknown(&self, asset: &str, cursor: &Cursor) -> Option<u64> {
        latest(self.find(asset, cursor), self.known(cursor)).map(|(first, _)| first)
    }

    /// The offset after the last seen of an asset, for each partition of a topic.
    pub fn seen<'a>(
        &'a self,
        asset: &str,
        topic: &'a str,
    ) -> impl Iterator<Item = (u32, u64)> + 'a {
        let seen = self.assets.get(asset).into_iter().flatten();
        seen.filter(move |seen| seen.topic == topic)
            .map(|seen| (seen.partition, seen.offset + 1))
    }

    /// Whether an event is certain to be the asset's next, or is one already seen.
    #[must_use]
    pub fn is_settled(&self, asset: &str, cursor: &Cursor, prev: Option<u64>) -> bool {
        let Some(first) = self.first_unknown(asset, cursor) else {
            return false;
        };
        cursor.offset <= first || prev.is_some_and(|prev| prev < first)
    }

    fn known(&self, cursor: &Cursor) -> Option<&Known> {
        let topics = self.partitions.get(&cursor.partition)?;
        topics.iter().find(|known| known.topic == cursor.topic)
    }

    fn known_mut(&mut self, topic: &str, partition: u32) -> &mut Known {
        let topics = self.partitions.entry(partition).or_default();
        let index = topics.iter().position(|known| known.topic == topic);
        let index = index.unwrap_or_else(|| {
            topics.push(Known {
                topic: topic.to_owned(),
                begin: 0,
                complete: None,
                interruptions: 0,
            });
            topics.len() - 1
        });
        &mut topics[index]
    }

    fn note(&mut self, asset: &str, cursor: &Cursor, interruptions: u64) {
        if let Some(seen) = self.find_mut(asset, cursor) {
            seen.offset = cursor.offset;
            seen.interruptions = interruptions;
            return;
        }
        let seen = Seen {
            topic: cursor.topic.clone(),
            partition: cursor.partition,
            offset: cursor.offset,
            interruptions,
        };
        self.assets.entry(asset.to_owned()).or_default().push(seen);
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
}

/// The first offset of which nothing is known, and the interruptions when that was found out.
fn latest(seen: Option<&Seen>, known: Option<&Known>) -> Option<(u64, u64)> {
    let seen = seen.map(|seen| (seen.offset + 1, seen.interruptions));
    let known = known.and_then(|known| Some((known.complete?, known.interruptions)));
    seen.max(known)
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

    #[test]
    fn where_a_partition_is_complete_an_asset_that_was_never_seen_can_be_missed_too() {
        let mut positions = Positions::default();
        positions.complete("t", 0, 50, 0);
        let gap = Verdict::AfterGap {
            first: 50,
            last: 60,
        };
        assert_eq!(positions.judge("a", &at(0, 70), Some(60)), gap);
        assert_eq!(positions.judge("a", &at(0, 70), Some(49)), Verdict::Fresh);
        assert_eq!(positions.judge("a", &at(0, 70), None), Verdict::Fresh);
        positions.interrupted();
        let possible = Verdict::AfterPossibleGap {
            first: 50,
            last: 69,
        };
        assert_eq!(positions.judge("a", &at(0, 70), None), possible);
        assert!(positions.is_settled("a", &at(0, 50), None));
        positions.complete("t", 0, 70, 1);
        assert!(positions.is_settled("a", &at(0, 70), None));
        assert_eq!(positions.judge("a", &at(0, 80), None), Verdict::Fresh);
    }

    #[test]
    fn what_lies_before_the_beginning_is_not_wanted() {
        let mut positions = Positions::default();
        positions.begin("t", 0, 50);
        assert_eq!(positions.accept("a", &at(0, 49), None), Verdict::Stale);
        assert_eq!(positions.accept("a", &at(0, 50), None), Verdict::Fresh);
    }

    #[test]
    fn what_was_asked_for_proves_nothing_about_the_connection() {
        let mut positions = Positions::default();
        positions.accept("a", &at(0, 5), None);
        positions.interrupted();
        assert!(positions.fill("a", &at(0, 8)));
        assert!(!positions.fill("a", &at(0, 8)));
        let possible = Verdict::AfterPossibleGap { first: 9, last: 9 };
        assert_eq!(positions.judge("a", &at(0, 10), None), possible);
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
