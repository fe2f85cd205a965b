//! Where the topic's sequence and the clients meet.
//!
//! One lock holds the position, the ring and the index of who watches what. A client that joins takes what the
//! ring has after its position and enters the index under that lock, so there is nothing between the two to lose
//! or to see twice. What the ring no longer has, it reads from Kafka before it asks to join again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::arrivals::Arrivals;
use super::frame::Frame;
use super::position::Position;
use super::queue::{Pushed, Queue};
use super::ring::Ring;
use super::seen::Seen;
use crate::selection::Selection;

/// Most bytes a joining client takes at a time, so that thousands who join at once need little memory.
const JOIN_BYTES: usize = 256 * 1024;

/// Bounds of a group's service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of events in memory for those who resume.
    pub(super) ring_bytes: usize,
    /// Bytes that may wait for one client.
    pub(super) queue_bytes: usize,
}

/// The clients of one topic.
pub(super) struct Hub {
    inner: Mutex<Inner>,
    partitions: u32,
    queue_bytes: usize,
    /// Somebody came with an id of a partition that is not read here.
    lacks_partition: AtomicBool,
}

struct Inner {
    position: Position,
    ring: Ring,
    watchers: HashMap<Arc<str>, Vec<Arc<Watcher>>>,
}

struct Watcher {
    selection: Arc<Selection>,
    arrivals: Arrivals,
    queue: Queue,
}

/// What joining came to.
pub(super) enum Join {
    /// The last events that were missing, and the subscription for all that follow.
    Live(Vec<Arc<Frame>>, Subscription),
    /// A first part of the missing events.
    More(Vec<Arc<Frame>>),
    /// Events that the ring no longer has: the offsets `from..to` of a partition.
    Read {
        /// The partition.
        partition: u32,
        /// First offset missing.
        from: u64,
        /// First offset the ring has.
        to: u64,
    },
    /// The client has seen more than this service: another replica was faster, or the topic was made anew.
    Ahead,
}

/// Deliveries of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Events put into clients' queues.
    pub(super) events: u64,
    /// Clients that had fallen behind: closed, or left out until they take something again.
    pub(super) slow: u64,
}

impl Delivered {
    /// Counts what became of a client's events. Whether it is to get what follows too.
    pub(super) fn count(&mut self, pushed: Pushed) -> bool {
        match pushed {
            Pushed::Waits(events) => {
                self.events += events;
                return true;
            }
            Pushed::Behind => self.slow += 1,
            Pushed::Closed => {}
        }
        false
    }
}

impl Hub {
    /// Begins a sequence at these offsets, one for each partition.
    #[must_use]
    pub(super) fn new(topic: &str, starts: Vec<u64>, limits: Limits) -> Self {
        Self {
            partitions: u32::try_from(starts.len()).unwrap_or(u32::MAX),
            queue_bytes: limits.queue_bytes,
            lacks_partition: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                ring: Ring::new(&starts, limits.ring_bytes),
                position: Position::new(topic, starts),
                watchers: HashMap::new(),
            }),
        }
    }

    /// How far the sequence has come.
    #[must_use]
    pub(super) fn position(&self) -> Position {
        self.inner.lock().position.clone()
    }

    /// Whether somebody has come with an id of a partition that is not read here, since this was last asked.
    pub(super) fn lacks_partition(&self) -> bool {
        self.lacks_partition.swap(false, Ordering::Relaxed)
    }

    #[cfg(test)]
    fn watchers(&self) -> usize {
        self.inner.lock().watchers.values().map(Vec::len).sum()
    }

    /// Takes in the sequence's next events and hands them to their clients. Waits for nobody. Below the offsets in `next` everything was
    /// read: what is not among the events is nobody's, and the ids of later ones count it. `now` is asked while it does: handing out may
    /// take long, and no client is to pay for that.
    pub(super) fn publish(
        &self,
        frames: &[Arc<Frame>],
        next: &BTreeMap<u32, u64>,
        now: impl Fn() -> Instant,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        let mut inner = self.inner.lock();
        // An asset's events that follow each other go to each client together: it is woken once for all.
        for run in frames.chunk_by(|one, next| one.asset == next.asset) {
            inner.hand_out(run, now(), &mut delivered);
            for frame in run {
                inner.position.saw(frame.partition, frame.offset);
                inner.ring.push(Arc::clone(frame));
            }
        }
        for (partition, next) in next {
            inner.position.advance(*partition, *next);
        }
        delivered
    }

    /// The next step for a client that has seen this much; it may be given events that it has. One that gets live is sent
    /// away when an asset arrives that the client is not prepared for.
    pub(super) fn join(
        self: &Arc<Self>,
        selection: &Arc<Selection>,
        seen: &Seen,
        arrivals: &Arrivals,
    ) -> Join {
        // Another replica knows it already. To go on without would be to give its events twice.
        if (self.partitions..seen.partitions()).any(|partition| seen.furthest(partition) > 0) {
            self.lacks_partition.store(true, Ordering::Relaxed);
            return Join::Ahead;
        }
        let mut inner = self.inner.lock();
        let mut missing = Vec::new();
        let mut bytes = 0;
        for partition in 0..self.partitions {
            let (from, start) = (seen.base().next(partition), inner.ring.start(partition));
            if from < start {
                if !missing.is_empty() {
                    return Join::More(missing);
                }
                return Join::Read {
                    partition,
                    from,
                    to: start,
                };
            }
            if seen.furthest(partition) > inner.position.next(partition) {
                return Join::Ahead;
            }
            for frame in inner.missing(selection, partition, from) {
                bytes += frame.size();
                missing.push(frame);
                if bytes >= JOIN_BYTES {
                    return Join::More(missing);
                }
            }
        }
        let watcher = Watcher {
            selection: Arc::clone(selection),
            arrivals: arrivals.clone(),
            queue: Queue::new(self.queue_bytes),
        };
        Join::Live(missing, self.subscribe(&mut inner, Arc::new(watcher)))
    }

    fn subscribe(self: &Arc<Self>, inner: &mut Inner, watcher: Arc<Watcher>) -> Subscription {
        for asset in watcher.selection.assets() {
            let watchers = inner.watchers.entry(Arc::clone(asset)).or_default();
            watchers.push(Arc::clone(&watcher));
        }
        Subscription {
            hub: Arc::clone(self),
            watcher,
        }
    }
}

impl Watcher {
    /// Hands one asset's events to the client, those it asked for.
    fn take(&self, run: &[Arc<Frame>], before: &Position, now: Instant) -> Pushed {
        // First: a client that is not given the events must not have its arrivals used up by them.
        if let Err(pushed) = self.queue.admit(before, now) {
            return pushed;
        }
        if !run.iter().all(|frame| frame.follows(&self.arrivals)) {
            self.queue.close();
            return Pushed::Closed;
        }
        let wanted = run.iter().filter(|frame| frame.is_of(&self.selection));
        self.queue.push(wanted.map(|frame| frame.live()), now)
    }
}

impl Inner {
    /// Hands events to all who watch their asset. One that is not to get any more leaves the index here and not when its connection
    /// ends: a client that takes nothing holds that for half a minute, and a thousand of them slowed the others by a quarter.
    fn hand_out(&mut self, run: &[Arc<Frame>], now: Instant, delivered: &mut Delivered) {
        let Some(asset) = run.first().map(|frame| &frame.asset) else {
            return;
        };
        let Some(watchers) = self.watchers.get_mut(asset) else {
            return;
        };
        let before = &self.position;
        watchers.retain(|watcher| delivered.count(watcher.take(run, before, now)));
        if watchers.is_empty() {
            self.watchers.remove(asset);
        }
    }

    /// What the ring has for a client on a partition, in order. Complete for its first [`JOIN_BYTES`]: behind these, an asset's events
    /// may be missing.
    fn missing(&self, selection: &Selection, partition: u32, from: u64) -> Vec<Arc<Frame>> {
        let mut found = Vec::new();
        for asset in selection.assets() {
            let mut bytes = 0;
            let frames = self.ring.since(partition, from, asset);
            let concerned = frames.filter(|frame| frame.concerns(selection));
            found.extend(
                concerned
                    .take_while(|frame| {
                        let has_room = bytes < JOIN_BYTES;
                        bytes += frame.size();
                        has_room
                    })
                    .cloned(),
            );
        }
        found.sort_by_key(|frame| frame.offset);
        found
    }
}

/// A client's place in the index, until dropped.
pub(super) struct Subscription {
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
}

impl Subscription {
    /// What waits for the client.
    #[must_use]
    pub(super) fn queue(&self) -> &Queue {
        &self.watcher.queue
    }

    /// The sequence's position, if nothing up to there still waits for the client.
    #[must_use]
    pub(super) fn quiet_position(&self) -> Option<Position> {
        let inner = self.hub.inner.lock();
        let quiet = self.watcher.queue.is_quiet();
        quiet.then(|| inner.position.clone())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock();
        for asset in self.watcher.selection.assets() {
            if let Some(watchers) = inner.watchers.get_mut(asset) {
                watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
                if watchers.is_empty() {
                    inner.watchers.remove(asset);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
