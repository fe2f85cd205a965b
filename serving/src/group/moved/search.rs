//! Looks through parts of topics, from their ends backwards.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use ofa_crds::Cursor;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::super::seen::AssetTag;
use super::{Away, Moves};
use crate::origin;
use crate::range::{self, RangeReader, Wanted};

/// Records looked at first, and how many times as many if that was not enough.
pub(super) const WINDOW: u64 = 1024;
pub(super) const WIDER: u64 = 8;

/// What is looked at in a record.
pub(in crate::group) struct Scan;

/// A record.
pub(in crate::group) struct Mark {
    pub(super) asset: AssetTag,
    pub(super) offset: u64,
    pub(super) source: Option<Cursor>,
}

impl Wanted for Scan {
    type Item = Mark;

    fn assets(&self) -> Option<Vec<Arc<str>>> {
        None
    }

    fn wants_asset(&self, _: &str) -> bool {
        true
    }

    fn read(asset: &str, record: &BorrowedMessage<'_>) -> Option<Mark> {
        Some(Mark {
            asset: AssetTag::of(asset),
            offset: u64::try_from(record.offset()).unwrap_or(0),
            source: origin::source(record),
        })
    }

    fn wants(&self, _: &Mark) -> bool {
        true
    }

    fn size(_: &Mark) -> usize {
        size_of::<Mark>()
    }
}

/// A partition of the source.
pub(super) type SourcePartition = (String, u32);

impl Mark {
    /// The source's partition, and the offset there.
    pub(super) fn origin(&self) -> Option<(SourcePartition, u64)> {
        let source = self.source.as_ref()?;
        Some(((source.topic.clone(), source.partition), source.offset))
    }
}

/// A part of a partition.
pub(super) struct Search<'a> {
    scans: &'a RangeReader<Scan>,
    topic: &'a Arc<str>,
    pub(super) partition: u32,
    pub(super) low: u64,
    end: u64,
}

impl<'a> Search<'a> {
    pub(super) fn of(
        moves: &'a Moves,
        topic: &'a Arc<str>,
        partition: u32,
        offsets: Range<u64>,
    ) -> Self {
        Self {
            scans: &moves.scans,
            topic,
            partition,
            low: offsets.start,
            end: offsets.end,
        }
    }

    pub(super) fn up_to(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// The offset behind the last record: behind it there may be marks of transactions.
    pub(super) async fn end_of_records(&self) -> Result<u64, Away> {
        let mut width = WINDOW;
        loop {
            let marks = self.last(width, &[]).await?;
            // There may be only marks of transactions.
            if !marks.is_empty() || self.start_of(width) == self.low {
                return Ok(marks.last().map_or(self.low, |last| last.offset + 1));
            }
            width *= WIDER;
        }
    }

    /// What matters of a window before the end: the records of `assets`, and each source partition's first and last one.
    pub(super) async fn last(
        &self,
        width: u64,
        assets: &[AssetTag],
    ) -> Result<Vec<Arc<Mark>>, Away> {
        let (mut firsts, mut lasts) = (BTreeMap::new(), BTreeMap::new());
        let (mut marks, mut from) = (Vec::new(), self.start_of(width));
        while from < self.end {
            let range = range::Range {
                topic: Arc::clone(self.topic),
                partition: self.partition,
                from,
                to: self.end,
                wanted: Arc::new(Scan),
            };
            let page = self.scans.read(range).await.map_err(|_| Away)?;
            for mark in page.items {
                let place = mark.origin().map(|(place, _)| place);
                firsts
                    .entry(place.clone())
                    .or_insert_with(|| Arc::clone(&mark));
                lasts.insert(place, Arc::clone(&mark));
                if assets.contains(&mark.asset) {
                    marks.push(mark);
                }
            }
            from = page.next;
        }
        marks.extend(firsts.into_values().chain(lasts.into_values()));
        marks.sort_by_key(|mark| mark.offset);
        marks.dedup_by_key(|mark| mark.offset);
        Ok(marks)
    }

    /// Where a window before the end begins.
    pub(super) fn start_of(&self, width: u64) -> u64 {
        self.end.saturating_sub(width).max(self.low)
    }
}

/// Which of `assets` have records here.
pub(super) fn found(marks: &[Arc<Mark>], assets: &[AssetTag]) -> BTreeSet<AssetTag> {
    let all = marks.iter().map(|mark| mark.asset);
    all.filter(|asset| assets.contains(asset)).collect()
}
