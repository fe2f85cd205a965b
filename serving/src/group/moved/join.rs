//! Where in a topic a client begins that comes from another one.
//!
//! Both topics are made from the same source, and what one partition of it has comes in its order in each. So a client begins here
//! with each asset's first event behind what it has had of it in the old topic ([`Had`]). It is looked for backwards from the end,
//! as far as the client was away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::position::Position;
use super::super::seen::{AssetTag, Seen, tags};
use super::had::Had;
use super::search::{Mark, Search, WIDER, WINDOW, found};
use super::{Away, Moves};
use crate::selection::Selection;

/// Records of a partition that are searched for where a client begins: what it was away for longer than that cannot be told.
const FARTHEST: u64 = WINDOW * WIDER * WIDER * WIDER * WIDER;

/// Records that are searched for an asset on a partition of which the old topic tells nothing.
const BLIND_WINDOW: u64 = 100_000;

/// Where a client begins in `topic` that has seen so much of other ones; `None` if it cannot be said.
pub(super) async fn begin(
    moves: &Moves,
    parts: &[&Seen],
    topic: &Arc<str>,
    selection: &Selection,
) -> Result<Option<Seen>, Away> {
    let Some(bounds) = moves.ends.committed(topic).await? else {
        return Ok(None);
    };
    let tags = tags(selection);
    let Some(had) = Had::of(moves, parts, bounds.len(), &tags).await? else {
        return Ok(None);
    };
    let mut begin = Seen::from(Position::new(Arc::clone(topic), Vec::new()));
    for (partition, (low, end)) in (0..).zip(bounds) {
        let search = Search::of(moves, topic, partition, low..end);
        let firsts = match had.knows(partition) {
            true => search.firsts(&had, &tags).await?,
            false => search.blind(&had, &tags).await?,
        };
        let Some(firsts) = firsts else {
            return Ok(None);
        };
        let end = search.end_of_records().await?;
        for tag in &tags {
            begin.raise(*tag, partition, firsts.get(tag).copied().unwrap_or(end));
        }
        // The partition is one that is known of, even if it begins there with the first record.
        begin.raise_all(partition, 0);
        begin.settle(&tags, partition);
    }
    Ok(Some(begin))
}

/// The same place, behind the last record: who reads the topic is not known to have passed what stands behind that.
pub(super) async fn without_marks(moves: &Moves, seen: Seen) -> Result<Seen, Away> {
    let topic = &Arc::clone(seen.base().topic());
    let Some(bounds) = moves.ends.committed(topic).await? else {
        return Ok(seen);
    };
    let mut next = Vec::with_capacity(bounds.len());
    for (partition, (low, end)) in (0..).zip(bounds) {
        let seen = seen.base().next(partition);
        let search = Search::of(moves, topic, partition, low..end);
        next.push(match seen <= low || seen > end {
            true => seen,
            false => search.up_to(seen).end_of_records().await?,
        });
    }
    Ok(seen.with_base(Position::new(Arc::clone(topic), next)))
}

/// Each asset's first record on a partition that a client has not had.
type Firsts = BTreeMap<AssetTag, u64>;

impl Search<'_> {
    /// Where what the client has not had begins; `None` if that cannot be said.
    async fn firsts(&self, had: &Had, tags: &[AssetTag]) -> Result<Option<Firsts>, Away> {
        let mut width = WINDOW;
        while width <= FARTHEST {
            let marks = self.last(width, tags).await?;
            let reaches_back = reaches_back(&marks, had, tags);
            if reaches_back || self.start_of(width) == self.low {
                let is_complete = self.low == 0 || reaches_back || marks.is_empty();
                return Ok(firsts(&marks, had, tags).filter(|_| is_complete));
            }
            width *= WIDER;
        }
        Ok(None)
    }

    /// On a partition of which the old topic says nothing an asset can only begin with the end, and only if it has sent
    /// nothing there lately.
    async fn blind(&self, had: &Had, tags: &[AssetTag]) -> Result<Option<Firsts>, Away> {
        let maybe = tags.iter().copied();
        let maybe = maybe.filter(|tag| had.may_have(*tag, self.partition));
        let maybe: Vec<AssetTag> = maybe.collect();
        if maybe.is_empty() {
            return Ok(Some(Firsts::new()));
        }
        let is_found = !found(&self.last(BLIND_WINDOW, &maybe).await?, &maybe).is_empty();
        let is_all = self.start_of(BLIND_WINDOW) == self.low;
        Ok((is_all && !is_found).then(Firsts::new))
    }
}

/// Whether records begin with what the client has had of all its assets, on each partition of the source.
fn reaches_back(marks: &[Arc<Mark>], had: &Had, tags: &[AssetTag]) -> bool {
    let mut begun = BTreeSet::new();
    let mut reaches = false;
    for source in marks.iter().map(|mark| mark.source.as_ref()) {
        if !begun.insert(source.map(|it| (&it.topic, it.partition))) {
            continue;
        }
        if source.is_some_and(|source| !had.knows_source(source)) {
            continue;
        }
        reaches = tags.iter().all(|tag| had.has(*tag, source) == Some(true));
        if !reaches {
            return false;
        }
    }
    reaches
}

/// Each asset's first record that the client has not had; `None` if that cannot be said of one.
fn firsts(marks: &[Arc<Mark>], had: &Had, tags: &[AssetTag]) -> Option<Firsts> {
    if marks.last().is_some_and(|last| last.source.is_none()) {
        return None;
    }
    let mut firsts = Firsts::new();
    for mark in marks.iter().filter(|mark| tags.contains(&mark.asset)) {
        if !had.has(mark.asset, mark.source.as_ref())? {
            firsts.entry(mark.asset).or_insert(mark.offset);
        }
    }
    Some(firsts)
}

#[cfg(test)]
mod tests {
    use super::super::had::tests::{had, mark};
    use super::*;

    #[test]
    fn a_client_begins_with_what_it_has_not_had() {
        let had = had(&[("X", "s/0/20"), ("Y", "s/1/7")]);
        let tags = [AssetTag::of("X"), AssetTag::of("Y")];
        let marks = [
            // From an earlier time in this group.
            mark("X", 3, Some("s/0/11")),
            mark("Z", 4, Some("s/1/6")),
            mark("Y", 5, Some("s/1/8")),
            mark("Z", 6, Some("s/0/21")),
            mark("X", 7, Some("s/0/22")),
            mark("X", 8, Some("s/0/23")),
        ];
        assert!(reaches_back(&marks, &had, &tags));
        assert!(!reaches_back(&marks[2..], &had, &tags));
        let expected = Firsts::from([(tags[0], 7), (tags[1], 5)]);
        assert_eq!(firsts(&marks, &had, &tags), Some(expected));
        assert_eq!(firsts(&marks[..2], &had, &tags), Some(Firsts::new()));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let had = had(&[("X", "s/0/20")]);
        let tags = [AssetTag::of("X")];
        // Of a partition of the source that the old topic tells nothing of.
        let other = [mark("X", 3, Some("s/1/7"))];
        assert_eq!(firsts(&other, &had, &tags), None);
        // ksqlDB's.
        let silent = [mark("X", 3, None)];
        assert_eq!(firsts(&silent, &had, &tags), None);
    }
}
