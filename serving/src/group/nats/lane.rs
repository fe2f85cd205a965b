//! One asset's events as they come: the newest in memory, and those who watch it.
//!
//! One lock holds both. A client that joins takes what memory has after its last event and enters the list of watchers
//! under that lock, so there is nothing between the two to lose or to see twice.

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::frame::Frame;
use super::super::hub::Delivered;
use super::super::queue::Pushed;
use super::super::seen::{AssetTag, Seen};
use super::inbox::{Inbox, Waiting};
use crate::selection::Selection;

/// For each partition an offset.
pub(super) type Offsets = BTreeMap<u32, u64>;

/// Bytes of events in memory, of all assets together.
#[derive(Debug)]
pub(super) struct Memory {
    used: AtomicUsize,
    bound: usize,
}

impl Memory {
    #[must_use]
    pub(super) fn new(bound: usize) -> Arc<Self> {
        let used = AtomicUsize::new(0);
        Arc::new(Self { used, bound })
    }

    /// One asset may not push out what is remembered of the others.
    fn bound_of_one(&self) -> usize {
        self.bound / 8
    }

    fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.bound
    }
}

/// What a lane is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// The subscription does not stand yet.
    Waits,
    /// Events come.
    Open,
    /// No event comes any more: whoever wants them comes back.
    Ended,
}

/// One asset.
pub(super) struct Lane {
    tag: AssetTag,
    inner: Mutex<Inner>,
    memory: Arc<Memory>,
    state: watch::Sender<LaneState>,
}

#[derive(Default)]
struct Inner {
    /// From here on everything is in memory.
    start: Offsets,
    /// Below, everything has come.
    complete: Offsets,
    /// By partition, in order.
    frames: BTreeMap<u32, VecDeque<Arc<Frame>>>,
    bytes: usize,
    watchers: Vec<Arc<Watcher>>,
}

/// One client.
pub(super) struct Watcher {
    pub(super) selection: Arc<Selection>,
    pub(super) inbox: Inbox,
}

impl Watcher {
    /// Hands the client those of an asset's events that it asked for.
    fn deliver<'a>(
        &self,
        asset: AssetTag,
        frames: impl IntoIterator<Item = &'a Arc<Frame>>,
        now: Instant,
    ) -> Pushed {
        let concerned = frames
            .into_iter()
            .filter(|frame| frame.concerns(&self.selection));
        let events = concerned.map(|frame| Waiting::Event(asset, Arc::clone(frame)));
        self.inbox.push(events, now)
    }

    /// Tells the client how far the asset is complete.
    fn tell(&self, asset: AssetTag, next: &Arc<Offsets>, now: Instant) -> Pushed {
        let complete = Waiting::Complete(asset, Arc::clone(next));
        self.inbox.push(iter::once(complete), now)
    }
}

impl Lane {
    #[must_use]
    pub(super) fn new(tag: AssetTag, memory: &Arc<Memory>) -> Self {
        Self {
            tag,
            inner: Mutex::default(),
            memory: Arc::clone(memory),
            state: watch::Sender::new(LaneState::Waits),
        }
    }

    #[must_use]
    pub(super) fn tag(&self) -> AssetTag {
        self.tag
    }

    /// What it is at, from now on.
    #[must_use]
    pub(super) fn state(&self) -> watch::Receiver<LaneState> {
        self.state.subscribe()
    }

    /// The subscription stands: every event from here on is going to come.
    pub(super) fn open(&self, start: Offsets) {
        self.inner.lock().start = start;
        self.state.send_replace(LaneState::Open);
    }

    /// No event comes any more: clients are sent away, and come back with their ids.
    pub(super) fn end(&self) {
        let mut inner = self.inner.lock();
        self.state.send_replace(LaneState::Ended);
        inner.send_away();
    }

    /// Takes the asset's next events in, which came at `now`, and hands them to who watches. Waits for nobody.
    pub(super) fn publish(&self, frames: &[Arc<Frame>], now: Instant) -> Delivered {
        let mut delivered = Delivered::default();
        let mut inner = self.inner.lock();
        // One that is not to get any more leaves here and not when its connection ends, which may take half a minute.
        inner
            .watchers
            .retain(|watcher| delivered.count(watcher.deliver(self.tag, frames, now)));
        for frame in frames {
            inner.remember(frame, &self.memory);
        }
        delivered
    }

    /// Events of a partition before `next` did not come. Clients are sent away: they come back, and are given what Kafka has of
    /// it.
    pub(super) fn lost(&self, partition: u32, next: u64) {
        let mut inner = self.inner.lock();
        let start = inner.start.entry(partition).or_default();
        *start = next.max(*start);
        while inner.oldest(partition).is_some_and(|oldest| oldest < next) {
            inner.pop(partition, &self.memory);
        }
        inner.send_away();
    }

    /// Everything below these offsets has come. `None` when that is less than before: the topic was made anew.
    #[must_use]
    pub(super) fn complete(&self, next: Offsets) -> Option<Delivered> {
        let mut inner = self.inner.lock();
        let fell =
            |(partition, before): (&u32, &u64)| next.get(partition).is_none_or(|it| it < before);
        if inner.complete.iter().any(fell) {
            return None;
        }
        inner.complete.clone_from(&next);
        let (next, now) = (Arc::new(next), Instant::now());
        let mut delivered = Delivered::default();
        inner
            .watchers
            .retain(|watcher| delivered.count(watcher.tell(self.tag, &next, now)));
        // Notices are no events.
        Some(Delivered {
            events: 0,
            ..delivered
        })
    }

    /// What a client lacks that memory no longer has: a partition, and the offsets from the first to before the second.
    #[must_use]
    pub(super) fn before_memory(&self, seen: &Seen) -> Option<(u32, u64, u64)> {
        self.inner.lock().before_memory(self.tag, seen)
    }

    /// What memory has for a client, in order, with the bytes of it; not much more than `limit`.
    #[must_use]
    pub(super) fn missing(&self, seen: &Seen, limit: usize) -> (Vec<Arc<Frame>>, usize) {
        let inner = self.inner.lock();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for frame in inner.missing(self.tag, seen) {
            if bytes >= limit {
                break;
            }
            bytes += frame.size();
            found.push(Arc::clone(frame));
        }
        (found, bytes)
    }

    /// Lets a client that has seen this much have what it lacks and all that follows; false when memory does not have what
    /// it lacks any more, or nothing follows.
    pub(super) fn attach(&self, watcher: &Arc<Watcher>, seen: &Seen) -> bool {
        let mut inner = self.inner.lock();
        let is_open = *self.state.borrow() == LaneState::Open;
        if !is_open || inner.before_memory(self.tag, seen).is_some() {
            return false;
        }
        let now = Instant::now();
        watcher.deliver(self.tag, inner.missing(self.tag, seen), now);
        watcher.tell(self.tag, &Arc::new(inner.complete.clone()), now);
        inner.watchers.push(Arc::clone(watcher));
        true
    }

    /// Ends what [`Self::attach`] began.
    pub(super) fn detach(&self, watcher: &Arc<Watcher>) {
        let mut inner = self.inner.lock();
        inner.watchers.retain(|it| !Arc::ptr_eq(it, watcher));
    }
}

impl Inner {
    fn before_memory(&self, tag: AssetTag, seen: &Seen) -> Option<(u32, u64, u64)> {
        let mut starts = self.start.iter();
        starts.find_map(|(partition, start)| {
            let from = seen.next(tag, *partition);
            (from < *start).then_some((*partition, from, *start))
        })
    }

    fn missing(&self, tag: AssetTag, seen: &Seen) -> impl Iterator<Item = &Arc<Frame>> {
        self.frames.iter().flat_map(move |(partition, frames)| {
            let next = seen.next(tag, *partition);
            frames.range(frames.partition_point(|frame| frame.offset < next)..)
        })
    }

    fn oldest(&self, partition: u32) -> Option<u64> {
        Some(self.frames.get(&partition)?.front()?.offset)
    }

    /// Keeps an event in memory, and forgets the oldest of its partition for it where there are too many.
    fn remember(&mut self, frame: &Arc<Frame>, memory: &Memory) {
        let partition = frame.partition;
        self.bytes += frame.size();
        memory.used.fetch_add(frame.size(), Ordering::Relaxed);
        let frames = self.frames.entry(partition).or_default();
        frames.push_back(Arc::clone(frame));
        while self.bytes > memory.bound_of_one() || memory.is_full() {
            let Some(oldest) = self.pop(partition, memory) else {
                break;
            };
            self.start.insert(partition, oldest + 1);
        }
    }

    /// Forgets the oldest event of a partition, and tells its offset.
    fn pop(&mut self, partition: u32, memory: &Memory) -> Option<u64> {
        let frame = self.frames.get_mut(&partition)?.pop_front()?;
        self.bytes -= frame.size();
        memory.used.fetch_sub(frame.size(), Ordering::Relaxed);
        Some(frame.offset)
    }

    fn send_away(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.inbox.close();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let bytes = self.inner.get_mut().bytes;
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
