//! Where in a topic a client begins that comes from another one.
//!
//! Both topics are made from the same source, and what one partition of it has comes in its order in each. So the source's
//! position in the last record before the client's place in the old topic bounds what it has had, and it begins here with
//! each asset's first event beyond that. It is looked for backwards from the end, as far as the client was away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use ofa_crds::Cursor;
use ofa_crds::cursor::SOURCE_HEADER;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use super::super::position::Position;
use super::super::seen::{AssetTag, Seen, tags};
use super::{Away, Moves};
use crate::range::{self, RangeReader, Wanted};
use crate::selection::Selection;

/// Records looked at first, and how many times as many if that was not enough.
const WINDOW: u64 = 1024;
const WIDER: u64 = 8;

/// Records that are searched for an asset on a partition of which the old topic tells nothing.
const BLIND_WINDOW: u64 = 100_000;

/// What is looked at in a record.
pub(super) struct Scan;

/// A record.
pub(super) struct Mark {
    asset: Box<str>,
    offset: u64,
    source: Option<Cursor>,
}

impl Wanted for Scan {
    type Item = Mark;

    fn wants_asset(&self, _: &str) -> bool {
        true
    }

    fn read(asset: &str, record: &BorrowedMessage<'_>) -> Option<Mark> {
        Some(Mark {
            asset: asset.into(),
            offset: u64::try_from(record.offset()).unwrap_or(0),
            source: source(record),
        })
    }

    fn wants(&self, _: &Mark) -> bool {
        true
    }

    fn size(_: &Mark) -> usize {
        size_of::<Mark>()
    }
}

/// The last such header: those before it have come with the source's record.
fn source(record: &BorrowedMessage<'_>) -> Option<Cursor> {
    let headers = record.headers()?;
    let own = headers.iter().filter(|header| header.key == SOURCE_HEADER);
    std::str::from_utf8(own.last()?.value?).ok()?.parse().ok()
}

/// A partition of the source.
type SourcePartition = (String, u32);

/// The last offset of each partition of the source that a client has had.
#[derive(Default)]
struct Had {
    offsets: HashMap<SourcePartition, u64>,
    /// Partitions of the derived topics of which that is known.
    partitions: BTreeSet<u32>,
    /// On which partitions of the derived topics assets were found.
    homes: BTreeMap<AssetTag, BTreeSet<u32>>,
}

impl Had {
    fn note(&mut self, partition: u32, mark: &Mark) {
        let Some(source) = &mark.source else { return };
        let place = (source.topic.clone(), source.partition);
        let known = self.offsets.entry(place).or_default();
        *known = (*known).max(source.offset);
        self.partitions.insert(partition);
        let home = self.homes.entry(AssetTag::of(&mark.asset)).or_default();
        home.insert(partition);
    }

    /// Whether the client has had a record of this position; `None` if that is not known. Records of former versions tell
    /// no position, and are older than all that do.
    fn has(&self, source: Option<&Cursor>) -> Option<bool> {
        let Some(source) = source else {
            return Some(true);
        };
        let place = (source.topic.clone(), source.partition);
        let had = self.offsets.get(&place)?;
        Some(source.offset <= *had)
    }

    /// Whether an asset may have had events on a partition.
    fn may_have(&self, asset: AssetTag, partition: u32) -> bool {
        let home = self.homes.get(&asset);
        home.is_none_or(|home| home.contains(&partition))
    }
}

/// Where a client begins in `topic` that has seen so much of other ones; `None` if it cannot be said.
pub(super) async fn begin(
    moves: &Moves,
    earlier: &[&Seen],
    topic: &Arc<str>,
    selection: &Selection,
) -> Result<Option<Seen>, Away> {
    let Some(bounds) = moves.ends.committed(topic).await? else {
        return Ok(None);
    };
    let mut had = Had::default();
    for seen in earlier {
        if !note_had(moves, seen, bounds.len(), &mut had).await? {
            return Ok(None);
        }
    }
    let tags = tags(selection);
    let mut begin = Seen::from(Position::new(Arc::clone(topic), Vec::new()));
    for (partition, (low, end)) in (0..).zip(bounds) {
        let search = Search::of(moves, topic, partition, low..end);
        let Some(firsts) = search.first_new(&had, &tags).await? else {
            return Ok(None);
        };
        let end = search.end_of_records().await?;
        for tag in &tags {
            begin.raise(*tag, partition, firsts.get(tag).copied().unwrap_or(end));
        }
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

/// Notes what is known of a topic; false if it says nothing of its source, or is not made as the other one is.
async fn note_had(
    moves: &Moves,
    seen: &Seen,
    partitions: usize,
    had: &mut Had,
) -> Result<bool, Away> {
    let topic = seen.base().topic();
    let Some(bounds) = moves.ends.committed(topic).await? else {
        return Ok(false);
    };
    if bounds.len() != partitions {
        return Ok(false);
    }
    for (partition, (low, end)) in (0..).zip(bounds) {
        let end = end.min(seen.base().next(partition));
        let search = Search::of(moves, topic, partition, low..end);
        let marks = search.last_records().await?;
        if marks.last().is_some_and(|last| last.source.is_none()) {
            return Ok(false);
        }
        for mark in &marks {
            had.note(partition, mark);
        }
    }
    Ok(true)
}

/// A part of a partition.
struct Search<'a> {
    scans: &'a RangeReader<Scan>,
    topic: &'a Arc<str>,
    partition: u32,
    low: u64,
    end: u64,
}

impl<'a> Search<'a> {
    fn of(moves: &'a Moves, topic: &'a Arc<str>, partition: u32, offsets: Range<u64>) -> Self {
        Self {
            scans: &moves.scans,
            topic,
            partition,
            low: offsets.start,
            end: offsets.end,
        }
    }

    fn up_to(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// The offset behind the last record: behind it there may be marks of transactions.
    async fn end_of_records(&self) -> Result<u64, Away> {
        let marks = self.last_records().await?;
        Ok(marks.last().map_or(self.low, |last| last.offset + 1))
    }

    /// Some records before the end, the last one among them.
    async fn last_records(&self) -> Result<Vec<Arc<Mark>>, Away> {
        let mut width = WINDOW;
        loop {
            let from = self.start_of(width);
            let marks = self.scan(from).await?;
            // There may be only marks of transactions.
            if !marks.is_empty() || from == self.low {
                return Ok(marks);
            }
            width *= WIDER;
        }
    }

    /// The first event of each asset that the client has not had; `None` if that cannot be said.
    async fn first_new(
        &self,
        had: &Had,
        tags: &[AssetTag],
    ) -> Result<Option<BTreeMap<AssetTag, u64>>, Away> {
        if !had.partitions.contains(&self.partition) {
            return self.blind(had, tags).await;
        }
        let mut width = WINDOW;
        loop {
            let from = self.start_of(width);
            let marks = self.scan(from).await?;
            let reaches_back = reaches_back(&marks, had);
            if reaches_back || from == self.low {
                let is_complete = self.low == 0 || reaches_back || marks.is_empty();
                return Ok(firsts(&marks, had, tags).filter(|_| is_complete));
            }
            width *= WIDER;
        }
    }

    /// On a partition of which the old topic says nothing an asset can only begin with the end, and only if it has sent
    /// nothing there lately.
    async fn blind(
        &self,
        had: &Had,
        tags: &[AssetTag],
    ) -> Result<Option<BTreeMap<AssetTag, u64>>, Away> {
        let maybe: Vec<AssetTag> = tags
            .iter()
            .copied()
            .filter(|tag| had.may_have(*tag, self.partition))
            .collect();
        if maybe.is_empty() {
            return Ok(Some(BTreeMap::new()));
        }
        let from = self.start_of(BLIND_WINDOW);
        let marks = self.scan(from).await?;
        let is_found = marks
            .iter()
            .any(|mark| maybe.contains(&AssetTag::of(&mark.asset)));
        Ok((from == self.low && !is_found).then(BTreeMap::new))
    }

    fn start_of(&self, width: u64) -> u64 {
        self.end.saturating_sub(width).max(self.low)
    }

    async fn scan(&self, from: u64) -> Result<Vec<Arc<Mark>>, Away> {
        let (mut marks, mut from) = (Vec::new(), from);
        while from < self.end {
            let range = range::Range {
                topic: Arc::clone(self.topic),
                partition: self.partition,
                from,
                to: self.end,
                wanted: Arc::new(Scan),
            };
            let page = self.scans.read(range).await.map_err(|_| Away)?;
            marks.extend(page.items);
            from = page.next;
        }
        Ok(marks)
    }
}

/// Whether records begin with what the client has had, on each partition of the source.
fn reaches_back(marks: &[Arc<Mark>], had: &Had) -> bool {
    let mut begun = BTreeSet::new();
    let mut reaches = false;
    for mark in marks {
        let place = mark.source.as_ref().map(|it| (&it.topic, it.partition));
        match had.has(mark.source.as_ref()) {
            Some(true) if begun.insert(place) => reaches = true,
            Some(false) if begun.insert(place) => return false,
            _ => {}
        }
    }
    reaches
}

/// Each asset's first event that the client has not had; `None` if that cannot be said of one.
fn firsts(marks: &[Arc<Mark>], had: &Had, tags: &[AssetTag]) -> Option<BTreeMap<AssetTag, u64>> {
    if marks.last().is_some_and(|last| last.source.is_none()) {
        return None;
    }
    let mut firsts = BTreeMap::new();
    for mark in marks {
        let asset = AssetTag::of(&mark.asset);
        if tags.contains(&asset) && !had.has(mark.source.as_ref())? {
            firsts.entry(asset).or_insert(mark.offset);
        }
    }
    Some(firsts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(asset: &str, offset: u64, source: Option<&str>) -> Arc<Mark> {
        Arc::new(Mark {
            asset: asset.into(),
            offset,
            source: source.map(|text| text.parse().unwrap()),
        })
    }

    fn had(last: &[&str]) -> Had {
        let mut had = Had::default();
        for text in last {
            had.note(0, &mark("X", 0, Some(text)));
        }
        had
    }

    #[test]
    fn a_client_begins_with_what_it_has_not_had() {
        let had = had(&["s/0/20", "s/1/7"]);
        let tags = [AssetTag::of("X"), AssetTag::of("Y")];
        let marks = [
            // From an earlier time in this group.
            mark("X", 3, Some("s/0/11")),
            mark("Y", 4, Some("s/1/7")),
            mark("Y", 5, Some("s/1/8")),
            mark("Z", 6, Some("s/0/21")),
            mark("X", 7, Some("s/0/22")),
            mark("X", 8, Some("s/0/23")),
        ];
        assert!(reaches_back(&marks, &had));
        assert!(!reaches_back(&marks[2..], &had));
        let expected = BTreeMap::from([(tags[0], 7), (tags[1], 5)]);
        assert_eq!(firsts(&marks, &had, &tags), Some(expected));
        assert_eq!(firsts(&marks[..2], &had, &tags), Some(BTreeMap::new()));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let had = had(&["s/0/20"]);
        let tags = [AssetTag::of("X")];
        // Of a partition of the source that the old topic tells nothing of.
        let other = [mark("X", 3, Some("s/1/7"))];
        assert_eq!(firsts(&other, &had, &tags), None);
        // ksqlDB's.
        let silent = [mark("X", 3, None)];
        assert_eq!(firsts(&silent, &had, &tags), None);
    }
}
