//! The part of a client's stream that brings it up to where several topics are, in the source's order.

use std::sync::Arc;

use bytes::Bytes;
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
const OTHER_GROUPS: &str = "the asset has been in other groups meanwhile";

/// Most topics that are looked into for one client.
const MAX_TOPICS: usize = 7;

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
    /// There is no more, and whether there was anything.
    All(bool),
    /// Before what comes next, the topic of another group is to be read too.
    Through(Arc<str>),
}

impl Client {
    /// Passes on what the topics have. Whether that was anything.
    pub(super) async fn catch_up(&mut self, extent: Extent) -> Result<bool, Away> {
        // One topic is not to be put in order with another.
        let extent = match extent {
            Extent::Visible if self.places.elsewhere.len() > 1 => Extent::Written,
            other => other,
        };
        loop {
            self.resolve().await?;
            let Some(merge) = self.begin_merge(extent).await? else {
                continue;
            };
            match self.pass_merged(merge).await? {
                Read::All(found) => return Ok(found),
                Read::Through(topic) => self.places.add(&topic),
            }
        }
    }

    /// Finds the places that are not known, by what the client has had elsewhere.
    async fn resolve(&mut self) -> Result<(), Away> {
        while let Some(at) = self.places.unknown() {
            let topic = self.places.elsewhere[at].base().topic();
            let (moves, known) = (&self.app.moves, self.places.known());
            let begin = match self.places.elsewhere.len() <= MAX_TOPICS {
                true => join::begin(moves, &known, topic, &self.selection).await?,
                false => None,
            };
            match begin {
                Some(begin) => self.places.elsewhere[at] = begin,
                None => self.leave(at, OTHER_GROUPS).await?,
            }
        }
        Ok(())
    }

    /// What there is to read; `None` if a topic is no more, which the client is told.
    async fn begin_merge(&mut self, extent: Extent) -> Result<Option<Merge>, Away> {
        let first = self.ends(extent).await?;
        let second = match extent {
            Extent::Visible => first.clone(),
            // What comes before something that was written before the first look was written before the second.
            Extent::Written | Extent::WrittenAndHere => self.ends(extent).await?,
        };
        match queues(&self.places, &first, &second) {
            Ok(queues) => Ok(Some(Merge::new(queues))),
            Err(at) if at < self.places.elsewhere.len() => {
                self.leave(at, MADE_ANEW).await?;
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

    async fn pass_merged(&mut self, mut merge: Merge) -> Result<Read, Away> {
        let (mut out, mut found) = (Vec::new(), false);
        loop {
            match merge.next() {
                Next::Read(queue) => self.read(queue, &mut out).await?,
                Next::Event(at, event) => {
                    if let Some(topic) = self.take(at, &event, &mut out) {
                        self.send(out.into()).await?;
                        return Ok(Read::Through(topic));
                    }
                    found |= !out.is_empty();
                }
                Next::Nothing => break,
            }
            if out.len() >= CHUNK {
                self.send(std::mem::take(&mut out).into()).await?;
            }
        }
        for queue in merge.queues() {
            if let Some(seen) = self.places.get_mut(queue.topic) {
                seen.raise_all(queue.partition, queue.position());
            }
        }
        if found {
            self.heard_at = Instant::now();
        }
        self.send(out.into()).await?;
        Ok(Read::All(found))
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

    /// Writes an event, unless the topic of another group comes before it, which is returned then.
    fn take(&mut self, at: usize, event: &Travelled, out: &mut Vec<u8>) -> Option<Arc<str>> {
        let frame = &event.frame;
        let topics = self.places.topics();
        let seen = self.places.get_mut(at)?;
        let asset = || AssetTag::of(&frame.asset);
        let is_new = frame.offset >= seen.next(asset(), frame.partition);
        let from = frame.moved_from.as_ref().filter(|_| is_new);
        if let Some(from) = from.filter(|from| !topics.contains(from)) {
            return Some(Arc::clone(from));
        }
        let is_new = seen.take_in_order(asset, frame.partition, frame.offset);
        if is_new && frame.is_of(&self.selection) {
            frame.write_at(&self.places.id(), out);
        }
        None
    }

    /// Lets a topic go of which no more can be had.
    async fn leave(&mut self, at: usize, why: &str) -> Result<(), Away> {
        self.places.leave(at);
        // Without a place here a gap is told by what comes next.
        if self.places.here.is_none() {
            return Ok(());
        }
        let gap: Bytes = frame::gap(why, &self.places.id());
        self.send(gap).await
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
