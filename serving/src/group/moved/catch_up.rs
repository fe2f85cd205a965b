//! The part of a client's stream that brings it up to where several topics are, in the source's order.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::frame;
use super::super::seen::AssetTag;
use super::super::stream::{MADE_ANEW, TOO_OLD};
use super::ends::Bounds;
use super::merge::{Merge, Next, Queue, Travel, Travelled};
use super::places::Places;
use super::{Away, Client, join};
use crate::range::Range;

/// Why events cannot be had that stand in topics of several groups.
pub(super) const OTHER_GROUPS: &str = "the asset has been in other groups meanwhile";

/// Bytes after which what is found is passed on.
const CHUNK: usize = 64 * 1024;

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What the topics elsewhere show now.
    Visible,
    /// What is written to the topics elsewhere by now.
    Written,
    /// The same, and what is written here.
    WrittenAndHere,
}

/// What came of reading.
enum Read {
    /// There is no more.
    All,
    /// Before what comes next, the topic of another group is to be read too.
    Through(Arc<str>),
}

impl Client {
    /// Passes on what the topics have. Whether that was anything.
    pub(super) async fn catch_up(&mut self, extent: Extent) -> Result<bool, Away> {
        let before = self.heard_at;
        loop {
            self.resolve().await?;
            let extent = match extent {
                // Of several topics one may show more than the others.
                Extent::Visible if self.places.elsewhere.len() > 1 => Extent::Written,
                other => other,
            };
            let Some(merge) = self.begin_merge(extent).await? else {
                continue;
            };
            match self.pass_merged(merge, extent).await? {
                Read::All => return Ok(self.heard_at != before),
                Read::Through(topic) => self.places.add(topic),
            }
        }
    }

    /// Finds the places that are not known, by what the client has had elsewhere.
    async fn resolve(&mut self) -> Result<(), Away> {
        while let Some(topic) = self.places.unknown() {
            let (moves, known) = (&self.app.moves, self.places.all().collect::<Vec<_>>());
            let begin = join::begin(moves, &known, topic, &self.selection).await?;
            if !self.places.begin(begin) {
                self.tell_gap(OTHER_GROUPS).await?;
            }
        }
        Ok(())
    }

    /// What there is to read; `None` if a topic is no more, which the client is told.
    async fn begin_merge(&mut self, extent: Extent) -> Result<Option<Merge>, Away> {
        let first = self.ends(extent).await?;
        let second = match extent {
            _ if first.len() == 1 => first.clone(),
            Extent::Visible => first.clone(),
            // What comes before something that was written before the first look was written before the second.
            Extent::Written | Extent::WrittenAndHere => self.ends(extent).await?,
        };
        match queues(&self.places, &first, &second) {
            Ok(queues) => Ok(Some(Merge::new(queues))),
            Err(at) if at < self.places.elsewhere.len() => {
                self.places.leave(at);
                self.tell_gap(MADE_ANEW).await?;
                Ok(None)
            }
            // The stream from here is going to tell.
            Err(_) => Ok(Some(Merge::new(Vec::new()))),
        }
    }

    async fn ends(&self, extent: Extent) -> Result<Vec<Option<Bounds>>, Away> {
        let ends = &self.app.moves.ends;
        let count = match extent {
            Extent::Visible | Extent::Written => self.places.elsewhere.len(),
            Extent::WrittenAndHere => self.places.all().count(),
        };
        let mut found = Vec::with_capacity(count);
        for seen in self.places.all().take(count) {
            let topic = seen.base().topic();
            found.push(match extent {
                Extent::Visible => ends.committed(topic).await?,
                Extent::Written | Extent::WrittenAndHere => ends.written(topic).await?,
            });
        }
        Ok(found)
    }

    async fn pass_merged(&mut self, mut merge: Merge, extent: Extent) -> Result<Read, Away> {
        let mut out = Vec::new();
        loop {
            match merge.next() {
                Next::Read(queue) => self.read(queue, &mut out).await?,
                Next::Event(at, event) => match self.before(at, &event, extent) {
                    None => self.take(at, &event, &mut out),
                    Some(topic) => {
                        self.pass(&mut out).await?;
                        // What comes here may be on its way: the client comes back, and has both read.
                        let is_here = *topic == *self.app.topic;
                        return if is_here {
                            Err(Away)
                        } else {
                            Ok(Read::Through(topic))
                        };
                    }
                },
                Next::Nothing => break,
            }
            if out.len() >= CHUNK {
                self.pass(&mut out).await?;
            }
        }
        for queue in merge.queues() {
            if let Some(seen) = self.places.get_mut(queue.topic) {
                seen.raise_all(queue.partition, queue.position());
            }
        }
        self.pass(&mut out).await?;
        Ok(Read::All)
    }

    async fn pass(&mut self, out: &mut Vec<u8>) -> Result<(), Away> {
        if !out.is_empty() {
            self.heard_at = Instant::now();
        }
        self.send(std::mem::take(out).into()).await
    }

    async fn read(&mut self, queue: &mut Queue, out: &mut Vec<u8>) -> Result<(), Away> {
        let Some(seen) = self.places.get_mut(queue.topic) else {
            return Err(Away);
        };
        let range = Range {
            topic: Arc::clone(seen.base().topic()),
            partition: queue.partition,
            from: queue.next,
            to: queue.end,
            wanted: Arc::new(Travel(Arc::clone(&self.selection))),
        };
        let read = self.app.moves.travels.read(range).await;
        let page = read.map_err(|_| Away)?;
        if let Some(first) = page.lost {
            seen.raise_all(queue.partition, first);
            out.extend_from_slice(&frame::gap(TOO_OLD, &self.places.id()));
        }
        queue.add(page.items, page.next);
        Ok(())
    }

    /// The topic of which something comes before an event that is not read yet.
    fn before(&self, at: usize, event: &Travelled, extent: Extent) -> Option<Arc<str>> {
        let (frame, seen) = (&event.frame, self.places.all().nth(at)?);
        let is_new = frame.offset >= seen.next(AssetTag::of(&frame.asset), frame.partition);
        let from = frame.moved_from.as_ref().filter(|_| is_new)?;
        let is_read = match **from == *self.app.topic {
            true => extent == Extent::WrittenAndHere,
            false => self.places.topics().contains(from),
        };
        (!is_read).then(|| Arc::clone(from))
    }

    fn take(&mut self, at: usize, event: &Travelled, out: &mut Vec<u8>) {
        let frame = &event.frame;
        let Some(seen) = self.places.get_mut(at) else {
            return;
        };
        let asset = || AssetTag::of(&frame.asset);
        let is_new = seen.take_in_order(asset, frame.partition, frame.offset);
        if is_new && frame.is_of(&self.selection) {
            frame.write_at(&self.places.id(), out);
        }
    }

    /// Tells the client that it cannot be given everything.
    pub(super) async fn tell_gap(&self, why: &str) -> Result<(), Away> {
        // Without a place here a gap is told by what comes next.
        if self.places.here.is_none() {
            return Ok(());
        }
        self.send(frame::gap(why, &self.places.id())).await
    }
}

/// The partitions of topics with these ends; with the number of a topic that is no more, or was made anew.
fn queues(
    places: &Places,
    first: &[Option<Bounds>],
    second: &[Option<Bounds>],
) -> Result<Vec<Queue>, usize> {
    let mut queues = Vec::new();
    for (at, (seen, (to, end))) in (0..).zip(places.all().zip(first.iter().zip(second))) {
        let (Some(to), Some(end)) = (to, end) else {
            return Err(at);
        };
        let is_of = |partition: u32| {
            let end = end.get(partition as usize);
            end.is_some_and(|(_, end)| seen.furthest(partition) <= *end)
        };
        if !(0..seen.partitions()).all(is_of) {
            return Err(at);
        }
        for (partition, ((_, to), (_, end))) in (0..).zip(to.iter().zip(end)) {
            let next = seen.base().next(partition);
            queues.push(Queue::new(at, partition, next, *to, *end));
        }
    }
    Ok(queues)
}
