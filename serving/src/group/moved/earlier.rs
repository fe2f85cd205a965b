//! What is left of a topic that a client's assets were in before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::super::frame::{self, Frame};
use super::super::seen::{AssetTag, Seen};
use super::super::stream::TOO_OLD;
use super::Away;
use super::ends::{Bounds, Ends};
use crate::range::{Page, Range, RangeReader};
use crate::selection::Selection;

/// How long a transaction may stay open: longer than its time-out.
const OPEN_PATIENCE: Duration = Duration::from_secs(40);
const OPEN_POLL: Duration = Duration::from_millis(20);

/// How far a client is in a topic that it has left.
pub(super) struct Earlier {
    pub(super) seen: Seen,
}

/// What was found.
pub(super) enum Rest {
    /// Nothing more up to the end.
    Nothing,
    /// A part, with the id after each event.
    Some(Bytes),
    /// The topic is no more, or was made anew.
    Gone,
}

/// What reading needs.
pub(super) struct Reading<'a> {
    pub(super) ranges: &'a RangeReader<Selection>,
    pub(super) selection: &'a Arc<Selection>,
    /// The client's id when it is this far in the topic.
    pub(super) id: &'a (dyn Fn(&Seen) -> String + Sync),
}

impl Earlier {
    /// The end that readers see now.
    pub(super) async fn visible_end(&self, ends: &Ends) -> Result<Option<Bounds>, Away> {
        ends.committed(self.seen.base().topic()).await
    }

    /// The end of all that is written now, once readers see all of it.
    pub(super) async fn written_end(&self, ends: &Ends) -> Result<Option<Bounds>, Away> {
        let topic = self.seen.base().topic();
        let Some(written) = ends.written(topic).await? else {
            return Ok(None);
        };
        let asked = Instant::now();
        while asked.elapsed() < OPEN_PATIENCE {
            let Some(visible) = ends.committed(topic).await? else {
                return Ok(None);
            };
            let mut both = written.iter().zip(&visible);
            if both.all(|((_, written), (_, visible))| visible >= written) {
                return Ok(Some(written));
            }
            sleep(OPEN_POLL).await;
        }
        Err(Away)
    }

    /// The next part up to `end`.
    pub(super) async fn read(
        &mut self,
        reading: &Reading<'_>,
        end: Option<&Bounds>,
    ) -> Result<Rest, Away> {
        let Some(end) = end.filter(|end| self.is_of(end)) else {
            return Ok(Rest::Gone);
        };
        for (partition, (_, end)) in (0..).zip(end) {
            while self.seen.base().next(partition) < *end {
                let range = Range {
                    topic: Arc::clone(self.seen.base().topic()),
                    partition,
                    from: self.seen.base().next(partition),
                    to: *end,
                    wanted: Arc::clone(reading.selection),
                };
                let page = reading.ranges.read(range).await.map_err(|_| Away)?;
                let bytes = self.write(partition, &page, reading.id);
                if !bytes.is_empty() {
                    return Ok(Rest::Some(bytes));
                }
            }
        }
        Ok(Rest::Nothing)
    }

    /// Whether the topic with this end can be the one that was read.
    fn is_of(&self, end: &Bounds) -> bool {
        let is_there = |partition: u32| {
            end.get(partition as usize)
                .is_some_and(|(_, end)| self.seen.furthest(partition) <= *end)
        };
        (0..self.seen.partitions()).all(is_there)
    }

    fn write(&mut self, partition: u32, page: &Page<Frame>, id: &dyn Fn(&Seen) -> String) -> Bytes {
        let mut out = Vec::new();
        if let Some(first) = page.lost {
            self.seen.raise_all(partition, first);
            out.extend_from_slice(&frame::gap(TOO_OLD, &id(&self.seen)));
        }
        for frame in &page.items {
            let asset = || AssetTag::of(&frame.asset);
            if self.seen.take_in_order(asset, partition, frame.offset) {
                frame.write_at(&id(&self.seen), &mut out);
            }
        }
        self.seen.raise_all(partition, page.next);
        out.into()
    }
}
