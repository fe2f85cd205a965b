//! How far one client has come, and what it is to be given next. Pure.

use std::sync::Arc;

use bytes::Bytes;

use super::super::arrivals::Arrivals;
use super::super::frame::{self, Frame};
use super::super::seen::{AssetTag, Seen, tags};
use super::super::stream::TOO_OLD;
use super::inbox::{Inbox, Waiting};
use super::lane::{Lane, Watcher};
use crate::range::Page;
use crate::selection::Selection;

/// Bytes that a client that is catching up is given at a time, so that thousands need little memory.
const PART_BYTES: usize = 256 * 1024;

/// A client's way through the events of its assets.
pub(super) struct Progress {
    pub(super) selection: Arc<Selection>,
    tags: Vec<AssetTag>,
    /// What has been written.
    seen: Seen,
    arrivals: Arrivals,
    is_over: bool,
}

/// A part of the topic, for those of a client's assets that lack it: others have what comes before it from elsewhere, and
/// get it all from there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) partition: u32,
    pub(super) from: u64,
    /// The offset after the last.
    pub(super) to: u64,
    assets: Vec<AssetTag>,
}

/// The next step of a client that joins.
pub(super) enum Step {
    /// Memory does not have this: it is to be read from Kafka.
    Read(Lack),
    /// A first part of what memory has.
    Write(Bytes),
    /// Whatever is missing waits in the inbox, and all that follows is going to come there.
    Live(Arc<Watcher>),
    /// Something has changed meanwhile.
    Again,
}

impl Progress {
    /// A client of these assets that has seen this much.
    #[must_use]
    pub(super) fn new(selection: Selection, mut seen: Seen, arrivals: Arrivals) -> Self {
        let tags = tags(&selection);
        seen.keep(&tags);
        Self {
            selection: Arc::new(selection),
            tags,
            seen,
            arrivals,
            is_over: false,
        }
    }

    /// Whether the client has to come back before it is given more: an asset has been in another group.
    #[must_use]
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What the client has, with what was written last.
    #[must_use]
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The next step at these lanes, which are those of all assets. `room` is for how many bytes the inbox is.
    pub(super) fn join<'a>(
        &mut self,
        lanes: impl Iterator<Item = &'a Lane> + Clone,
        room: usize,
    ) -> Step {
        if let Some(lack) = self.lack(lanes.clone()) {
            return Step::Read(lack);
        }
        // What goes into the inbox leaves most of it for what comes.
        let limit = PART_BYTES.min(room / 4);
        let (mut missing, mut bytes) = (Vec::new(), 0);
        for lane in lanes.clone() {
            let (found, size) = lane.missing(&self.seen, limit.saturating_sub(bytes));
            missing.extend(found.into_iter().map(|frame| (lane.tag(), frame)));
            bytes += size;
        }
        if bytes >= limit && !missing.is_empty() {
            return Step::Write(self.write_all(&missing));
        }
        let watcher = Arc::new(Watcher {
            selection: Arc::clone(&self.selection),
            inbox: Inbox::new(room),
        });
        if lanes.clone().all(|lane| lane.attach(&watcher, &self.seen)) {
            return Step::Live(watcher);
        }
        lanes.for_each(|lane| lane.detach(&watcher));
        Step::Again
    }

    fn lack<'a>(&self, lanes: impl Iterator<Item = &'a Lane>) -> Option<Lack> {
        let mut lack: Option<Lack> = None;
        for lane in lanes {
            let Some((partition, from, to)) = lane.before_memory(&self.seen) else {
                continue;
            };
            let lack = lack.get_or_insert_with(|| Lack {
                partition,
                from,
                to,
                assets: Vec::new(),
            });
            if lack.partition == partition {
                lack.from = lack.from.min(from);
                lack.to = lack.to.max(to);
                lack.assets.push(lane.tag());
            }
        }
        lack
    }

    /// Writes what was read of a part.
    pub(super) fn read(&mut self, lack: &Lack, page: &Page<Frame>) -> Bytes {
        let mut out = Vec::new();
        if let Some(first) = page.lost {
            self.raise(&lack.assets, lack.partition, first);
            out.extend_from_slice(&frame::gap(TOO_OLD, &self.seen));
        }
        for frame in &page.items {
            // A record without id is on the topic, and not on NATS.
            let asset = AssetTag::of(&frame.asset);
            if frame.id.is_some() && lack.assets.contains(&asset) {
                self.write(asset, frame, &mut out);
            }
        }
        self.raise(&lack.assets, lack.partition, page.next);
        out.into()
    }

    /// Writes what waited.
    pub(super) fn take(&mut self, items: &[Waiting]) -> Bytes {
        let mut out = Vec::new();
        for item in items {
            match item {
                Waiting::Event(asset, frame) => self.write(*asset, frame, &mut out),
                Waiting::Complete(asset, next) => {
                    for (partition, next) in next.iter() {
                        self.raise(&[*asset], *partition, *next);
                    }
                }
            }
        }
        out.into()
    }

    fn write_all(&mut self, frames: &[(AssetTag, Arc<Frame>)]) -> Bytes {
        let mut out = Vec::with_capacity(frames.iter().map(|(_, frame)| frame.size()).sum());
        for (asset, frame) in frames {
            self.write(*asset, frame, &mut out);
        }
        out.into()
    }

    /// Writes an event with the id after it, unless the client has it.
    fn write(&mut self, asset: AssetTag, frame: &Frame, out: &mut Vec<u8>) {
        let partition = frame.partition;
        if self.is_over || frame.offset < self.seen.next(asset, partition) {
            return;
        }
        if !frame.follows(&self.arrivals) {
            out.extend_from_slice(&frame.elsewhere(&self.seen));
            self.is_over = true;
            return;
        }
        self.raise(&[asset], partition, frame.offset + 1);
        if frame.is_of(&self.selection) {
            frame.write_at(&self.seen, out);
        }
    }

    fn raise(&mut self, assets: &[AssetTag], partition: u32, next: u64) {
        if self.is_over {
            return;
        }
        for asset in assets {
            self.seen.raise(*asset, partition, next);
        }
        self.seen.settle(&self.tags, partition);
    }
}

#[cfg(test)]
mod tests;
