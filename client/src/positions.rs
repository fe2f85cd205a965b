//! The last position of each asset: what is new, what was seen, what was missed.

use std::collections::{BTreeMap, HashMap};

use ofa_crds::Cursor;

use crate::item::Extent;

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

impl Verdict {
    /// What is missing before an event with this cursor.
    #[must_use]
    pub fn missing(&self, cursor: &Cursor) -> Option<Extent> {
        let (topic, partition) = (|| cursor.topic.clone(), cursor.partition);
        match *self {
            Self::Fresh | Self::Stale => None,
            Self::AfterGap { first, last } => Some(Extent::Missed {
                topic: topic(),
                partition,
                first,
                last,
            }),
            Self::AfterPossibleGap { first, last } => Some(Extent::Possible {
                topic: topic(),
                partition,
                first,
                last,
            }),
        }
    }
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

    /// Takes in an event of `asset` that proves that a connection delivers after so many interruptions, and nothing about one
    /// that was made since: what [`Self::interruptions`] was when it arrived, or less.
    pub fn accept_late(
        &mut self,
        asset: &str,
        cursor: &Cursor,
        prev: Option<u64>,
        proof: u64,
    ) -> Verdict {
        let verdict = self.judge(asset, cursor, prev);
        if verdict != Verdict::Stale {
            self.note(asset, cursor, proof);
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

    /// The offset after the last seen of any asset, for each partition of a topic.
    #[must_use]
    pub fn seen_of_any(&self, topic: &str) -> BTreeMap<u32, u64> {
        let mut last = BTreeMap::new();
        for seen in self.assets.values().flatten() {
            if seen.topic == topic {
                let next = last.entry(seen.partition).or_default();
                *next = (seen.offset + 1).max(*next);
            }
        }
        last
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
mod tests;
