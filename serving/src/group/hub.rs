//! Where the topic's sequence and the clients meet.
//!
//! One lock holds the position, the ring and the index of who watches what. A client that joins takes what the
//! ring has after its position and enters the index under that lock, so there is nothing between the two to lose
//! or to see twice. What the ring no longer has, it reads from Kafka before it asks to join again.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// Clients that had fallen behind and were closed.
    pub(super) closed: u64,
}

impl Hub {
    /// Begins a sequence at these offsets, one for each partition.
    #[must_use]
    pub(super) fn new(topic: &str, starts: Vec<u64>, limits: Limits) -> Self {
        Self {
            partitions: u32::try_from(starts.len()).unwrap_or(u32::MAX),
            queue_bytes: limits.queue_bytes,
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

    #[cfg(test)]
    fn watchers(&self) -> usize {
        self.inner.lock().watchers.values().map(Vec::len).sum()
    }

    /// Takes in the sequence's next events and hands them to their clients. Waits for nobody.
    pub(super) fn publish(&self, frames: Vec<Arc<Frame>>) -> Delivered {
        let mut delivered = Delivered::default();
        let mut inner = self.inner.lock();
        for frame in frames {
            for watcher in inner.watchers.get(&frame.asset).into_iter().flatten() {
                if !frame.follows(&watcher.arrivals) {
                    watcher.queue.close();
                    continue;
                }
                if !frame.is_of(&watcher.selection) {
                    continue;
                }
                match watcher.queue.push(frame.live()) {
                    Pushed::Waits => delivered.events += 1,
                    Pushed::Overflowed => delivered.closed += 1,
                    Pushed::Closed => {}
                }
            }
            inner.position.saw(frame.partition, frame.offset);
            inner.ring.push(frame);
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
                if bytes >= JOIN_BYTES {
                    return Join::More(missing);
                }
                bytes += frame.size();
                missing.push(frame);
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

impl Inner {
    /// What the ring has for a client on a partition, in order.
    fn missing(&self, selection: &Selection, partition: u32, from: u64) -> Vec<Arc<Frame>> {
        let mut found: Vec<Arc<Frame>> = selection
            .assets()
            .flat_map(|asset| self.ring.since(partition, from, asset))
            .filter(|frame| frame.concerns(selection))
            .cloned()
            .collect();
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
mod tests {
    use proptest::prelude::*;

    use super::super::queue::Next;
    use super::*;

    const PARTITIONS: u32 = 2;

    /// The topic: the source of truth that a range read goes to.
    #[derive(Default)]
    struct Topic {
        records: Vec<(u32, u64, &'static str)>,
        next: [u64; PARTITIONS as usize],
    }

    impl Topic {
        fn append(&mut self, hub: &Hub, partition: u32, asset: &'static str) {
            let next = &mut self.next[partition as usize];
            self.records.push((partition, *next, asset));
            let mut position = hub.position();
            position.saw(partition, *next);
            hub.publish(vec![frame(partition, *next, asset, Some(&position))]);
            *next += 1;
        }

        fn of(&self, asset: &str, from: &Position) -> Vec<(u32, u64)> {
            let mut found: Vec<(u32, u64)> = self
                .records
                .iter()
                .filter(|(partition, offset, a)| *a == asset && *offset >= from.next(*partition))
                .map(|(partition, offset, _)| (*partition, *offset))
                .collect();
            found.sort_unstable();
            found
        }
    }

    fn frame(partition: u32, offset: u64, asset: &str, at: Option<&Position>) -> Arc<Frame> {
        let value = format!("{partition}/{offset}");
        Arc::new(Frame::new(
            (partition, offset),
            asset.into(),
            None,
            value.as_bytes(),
            at,
        ))
    }

    fn hub(room: usize) -> Arc<Hub> {
        let limits = Limits {
            ring_bytes: room * 150,
            queue_bytes: 1 << 20,
        };
        Arc::new(Hub::new("t", vec![0; PARTITIONS as usize], limits))
    }

    /// What a client has written down: the events, and the id after each.
    fn written(bytes: &[u8]) -> Vec<((u32, u64), Position)> {
        let text = std::str::from_utf8(bytes).unwrap();
        let events = text.split("\n\n").filter(|event| !event.is_empty());
        events
            .map(|event| {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap().to_owned()
                };
                let (partition, offset) = field("data: ")
                    .split_once('/')
                    .map(|(p, o)| (p.parse().unwrap(), o.parse().unwrap()))
                    .unwrap();
                (
                    (partition, offset),
                    Position::parse(&field("id: ")).unwrap(),
                )
            })
            .collect()
    }

    proptest! {
        /// A client that goes and comes back at any moments, with the id of the last event it has seen, at a
        /// service with any little memory, gets every event once and each partition's in order.
        #[test]
        fn a_client_that_comes_back_has_missed_nothing(
            steps in proptest::collection::vec((0u32..PARTITIONS, any::<bool>(), 0u8..6), 1..120),
            room in 0usize..30,
        ) {
            let hub = hub(room);
            let mut topic = Topic::default();
            let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
            let start = hub.position();
            let mut position = start.clone();
            let mut received = Vec::new();
            let mut subscription: Option<Subscription> = None;
            let last = steps.len() - 1;
            for (index, (partition, mine, action)) in steps.into_iter().enumerate() {
                topic.append(&hub, partition, if mine { "A" } else { "B" });
                if let Some(live) = &subscription {
                    while let Next::Write(bytes) = live.queue().take() {
                        for (event, id) in written(&bytes) {
                            received.push(event);
                            position = id;
                        }
                    }
                }
                if action == 0 {
                    subscription = None;
                }
                while subscription.is_none() && (action == 1 || index == last) {
                    let frames = match hub.join(&selection, &position.clone().into(), &Arrivals::default()) {
                        Join::Live(frames, live) => { subscription = Some(live); frames }
                        Join::More(frames) => frames,
                        Join::Read { partition, from, to } => {
                            let mut read = Vec::new();
                            for (_, offset, asset) in topic.records.iter().filter(|(p, o, a)| *p == partition && (from..to).contains(o) && *a == "A") {
                                read.push(frame(partition, *offset, asset, None));
                            }
                            received.extend(read.iter().map(|frame| (frame.partition, frame.offset)));
                            position.advance(partition, to);
                            continue;
                        }
                        Join::Ahead => { prop_assert!(false, "nobody is ahead"); break }
                    };
                    for frame in frames {
                        let mut out = Vec::new();
                        position.saw(frame.partition, frame.offset);
                        frame.write_at(&position, &mut out);
                        for (event, id) in written(&out) {
                            received.push(event);
                            position = id;
                        }
                    }
                }
            }
            let in_order = |partition: u32| received.iter().filter(move |(p, _)| *p == partition).copied().collect::<Vec<_>>();
            let mut by_partition: Vec<(u32, u64)> = (0..PARTITIONS).flat_map(in_order).collect();
            prop_assert!(by_partition.is_sorted());
            by_partition.dedup();
            prop_assert_eq!(by_partition.len(), received.len());
            prop_assert_eq!(by_partition, topic.of("A", &start));
        }
    }

    #[test]
    fn one_that_is_ahead_is_told() {
        let hub = hub(10);
        let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
        let ahead = Position::new("t", vec![1]);
        assert!(matches!(
            hub.join(&selection, &ahead.into(), &Arrivals::default()),
            Join::Ahead
        ));
    }

    /// An id beyond events that a client did not get would make it miss them for good.
    #[test]
    fn one_that_fell_behind_is_told_no_newer_id() {
        let limits = Limits {
            ring_bytes: 1 << 20,
            queue_bytes: 1,
        };
        let hub = Arc::new(Hub::new("t", vec![0], limits));
        let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
        let Join::Live(_, subscription) =
            hub.join(&selection, &hub.position().into(), &Arrivals::default())
        else {
            panic!("there is nothing to catch up");
        };
        assert!(subscription.quiet_position().is_some());
        let frames = (0..2).map(|offset| frame(0, offset, "A", Some(&hub.position())));
        let delivered = hub.publish(frames.collect());
        assert_eq!((delivered.events, delivered.closed), (1, 1));
        assert_eq!(subscription.quiet_position(), None);
    }

    #[test]
    fn one_that_goes_leaves_nothing_behind() {
        let hub = hub(10);
        let selection = Arc::new(Selection::from_query(Some("asset_uuid=A,B")).unwrap());
        let Join::Live(_, subscription) =
            hub.join(&selection, &hub.position().into(), &Arrivals::default())
        else {
            panic!("there is nothing to catch up");
        };
        assert_eq!(hub.watchers(), 2);
        drop(subscription);
        assert_eq!(hub.watchers(), 0);
    }
}
