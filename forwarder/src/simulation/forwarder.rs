//! A forwarder of the simulation: the real [`Tracker`] and [`Window`], driven in the pump's and the
//! shard task's order of steps.

use std::collections::{BTreeMap, VecDeque};

use super::Defect;
use super::nats::{Message, Reply, Shard, Token};
use crate::commit::{CommittedPosition, Tracker};
use crate::publish::{Batch, Confirmed, SinkId, Window};

/// Batches that a shard may have unconfirmed.
const WINDOW: usize = 4;

/// A session with a shard.
#[derive(Debug)]
struct Session {
    number: u64,
    generation: u64,
    node: usize,
}

/// What a forwarder holds for one shard.
#[derive(Debug, Default)]
struct Lane {
    window: Window,
    held: usize,
    session: Option<Session>,
    sessions: u64,
    first_session: u64,
    replies: VecDeque<Reply>,
    isolated: bool,
}

/// One member of the group.
#[derive(Debug)]
pub(super) struct Forwarder {
    id: usize,
    defect: Option<Defect>,
    pub(super) tracker: Tracker,
    positions: BTreeMap<i32, i64>,
    lanes: [Lane; 2],
    /// Largest offset that any shard confirmed, by partition: only a defect looks at it.
    largest: BTreeMap<i32, i64>,
}

/// The shard that an event belongs to.
pub(super) fn shard_of(offset: i64) -> usize {
    usize::from(offset.rem_euclid(2) == 1)
}

impl Forwarder {
    /// A new process; its sessions count from `first_session`, since no two processes share one.
    pub(super) fn new(id: usize, first_session: u64, defect: Option<Defect>) -> Self {
        let lane = || Lane {
            sessions: first_session,
            first_session,
            ..Lane::default()
        };
        Self {
            id,
            defect,
            tracker: Tracker::default(),
            positions: BTreeMap::new(),
            lanes: [lane(), lane()],
            largest: BTreeMap::new(),
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// The group gives a partition.
    pub(super) fn assign(&mut self, partition: i32, committed: Option<&CommittedPosition>) {
        self.tracker.assign(partition);
        let mut start = committed.map_or(0, |position| position.offset);
        if let Some(position) = committed.filter(|position| !position.behind.is_empty()) {
            for (&sink, &offset) in &position.behind {
                self.lanes[sink.0 as usize].isolated = true;
                self.tracker.fall_behind(partition, sink, offset);
            }
            start = position.head;
            self.tracker.start_at(partition, start);
        }
        start += i64::from(self.has(Defect::ResumeOnePast) && start > 0);
        self.positions.insert(partition, start);
    }

    /// The group takes a partition.
    pub(super) fn let_go(&mut self, partition: i32) {
        self.tracker.remove(partition);
        self.positions.remove(&partition);
    }

    /// Takes records of a partition and hands them over, as far as shards have room.
    pub(super) fn take(&mut self, partition: i32, count: i64, end: i64) {
        let Some(&position) = self.positions.get(&partition) else {
            return;
        };
        let Some(tenure) = self.tracker.tenure(partition) else {
            return;
        };
        let mut batches = [Batch::new(Vec::new()), Batch::new(Vec::new())];
        let mut next = position;
        while next < end.min(position + count) {
            let shard = shard_of(next);
            if self.lanes[shard].isolated {
                self.tracker.fall_behind(partition, sink(shard), next);
            } else if self.lanes[shard].held >= WINDOW {
                break;
            } else {
                batches[shard].note(partition, tenure, next, 1);
            }
            self.tracker.taken(partition, next);
            next += 1;
        }
        self.positions.insert(partition, next);
        for (shard, batch) in batches.into_iter().enumerate() {
            self.hand_over(shard, batch);
        }
    }

    fn hand_over(&mut self, shard: usize, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        self.tracker.handed_over(sink(shard), batch.spans());
        self.lanes[shard].held += 1;
        self.lanes[shard].window.push(batch);
    }

    /// Lets the others go on without a shard that confirms nothing.
    fn isolate(&mut self, shard: usize) {
        if self.lanes[shard].held >= WINDOW {
            self.lanes[shard].isolated = true;
        }
    }

    /// Gives a shard that is back some of what it missed.
    pub(super) fn catch_up(&mut self, shard: usize, count: i64) {
        if !self.lanes[shard].isolated || self.lanes[shard].held >= WINDOW {
            return;
        }
        let behind = self.tracker.behind(sink(shard));
        if behind.is_empty()
            || self.has(Defect::RejoinBeforeCaughtUp) && self.lanes[shard].held == 0
        {
            self.lanes[shard].isolated = false;
        }
        for (partition, tenure, from) in behind {
            let Some(next) = self.tracker.next(partition) else {
                continue;
            };
            let until = next.min(from + count);
            let mut batch = Batch::new(Vec::new());
            if !self.has(Defect::SkipWhatWasMissed) {
                (from..until)
                    .filter(|&offset| shard_of(offset) == shard)
                    .for_each(|offset| {
                        batch.note(partition, tenure, offset, 1);
                    });
            }
            self.hand_over(shard, batch);
            self.tracker.catch_up(partition, sink(shard), until);
        }
    }

    /// Publishes the oldest unsent batch and a marker behind it; opens a session first where there is none.
    pub(super) fn publish(&mut self, shard: usize, nats: &mut Shard, node: usize) {
        self.lose_session_with_node(shard, nats);
        if self.lanes[shard].session.is_none() {
            if nats.away {
                return self.isolate(shard);
            }
            self.open(shard, nats, node);
        }
        let defect = self.defect;
        let lane = &mut self.lanes[shard];
        let Some(session) = &lane.session else { return };
        let Some(batch) = lane.window.unsent() else {
            return;
        };
        for span in batch.spans() {
            let ours = (span.first..=span.last).filter(|&offset| shard_of(offset) == shard);
            ours.for_each(|offset| {
                nats.publish(session.node, Message::Event((span.partition, offset)));
            });
        }
        lane.window.sent();
        let number = lane.window.mark();
        let token = Token {
            forwarder: self.id,
            session: session.number,
            number,
        };
        nats.publish(session.node, Message::Marker(token));
        nats.publish(session.node, Message::Ping(token));
        if defect == Some(Defect::CommitOnFlush) {
            lane.replies.push_back(Reply::Witnessed(token));
        }
    }

    fn open(&mut self, shard: usize, nats: &Shard, node: usize) {
        let defect = self.defect;
        let lane = &mut self.lanes[shard];
        if lane.sessions > lane.first_session {
            match defect {
                Some(Defect::ForgetOnReconnect) => lane.window.forget(),
                Some(Defect::ResendNewestOnly) => lane.window.keep_newest(),
                Some(Defect::ResendReversed) => lane.window.reverse(),
                _ => {}
            }
        }
        lane.window.restart();
        lane.sessions += 1;
        lane.session = Some(Session {
            number: lane.sessions,
            generation: nats.generation,
            node,
        });
    }

    /// Ends a session: over a node that died, or because its markers stay away.
    pub(super) fn end_session(&mut self, shard: usize) {
        self.lanes[shard].session = None;
    }

    /// Ends a session whose markers stay away.
    pub(super) fn end_if_stalled(&mut self, shard: usize) {
        if self.lanes[shard].window.awaits_marker() {
            self.end_session(shard);
        }
    }

    fn lose_session_with_node(&mut self, shard: usize, nats: &Shard) {
        let lane = &mut self.lanes[shard];
        if lane
            .session
            .as_ref()
            .is_some_and(|session| session.generation != nats.generation || nats.away)
        {
            lane.session = None;
        }
    }

    /// A reply is on its way to this forwarder.
    pub(super) fn reply(&mut self, shard: usize, reply: Reply) {
        self.lanes[shard].replies.push_back(reply);
    }

    /// Handles one reply.
    pub(super) fn hear(&mut self, shard: usize) {
        let Some(reply) = self.lanes[shard].replies.pop_front() else {
            return;
        };
        let token = match reply {
            Reply::Witnessed(token) => token,
            Reply::Pong(token) if self.has(Defect::CommitOnPong) => token,
            Reply::Pong(_) => return,
        };
        let current = self.lanes[shard]
            .session
            .as_ref()
            .map(|session| session.number);
        if current != Some(token.session) && !self.has(Defect::MarkersOutliveSessions) {
            return;
        }
        self.confirm(shard, token.number);
    }

    fn confirm(&mut self, shard: usize, number: u64) {
        let lane = &mut self.lanes[shard];
        if self.defect == Some(Defect::IgnoreMarkerGap) {
            lane.window.skip_markers_before(number);
        }
        if self.defect == Some(Defect::MarkerConfirmsAll) {
            lane.window.widen_marker(number);
        }
        let Ok(confirmed) = lane.window.confirm(number).map(Iterator::collect::<Vec<_>>) else {
            lane.session = None;
            return;
        };
        for batch in confirmed {
            lane.held -= 1;
            let (spans, _) = batch.into_parts();
            for span in &spans {
                let largest = self.largest.entry(span.partition).or_insert(-1);
                *largest = span.last.max(*largest);
            }
            self.tracker.confirmed(&Confirmed {
                sink: sink(shard),
                spans,
            });
        }
    }

    /// The position that this forwarder would commit for a partition.
    pub(super) fn position(&self, partition: i32, revoked: bool) -> Option<CommittedPosition> {
        let (_, mut position) = self.tracker.uncommitted(&[partition]).pop()?;
        let taken = self.positions.get(&partition).copied();
        match self.defect {
            Some(Defect::CommitWhatWasTaken) => position.offset = taken?,
            Some(Defect::CommitTakenOnRevoke) if revoked => position.offset = taken?,
            Some(Defect::CommitPastFailure) => {
                position.offset = position.offset.max(
                    self.largest
                        .get(&partition)
                        .map_or(0, |largest| largest + 1),
                );
            }
            Some(Defect::CommitHead) => {
                position.offset = position.head;
                position.behind.clear();
            }
            _ => {}
        }
        Some(position)
    }

    /// Whether everything up to `end` is taken and confirmed.
    pub(super) fn is_done(&self, partition: i32, end: i64) -> bool {
        self.positions.get(&partition) == Some(&end)
            && self.tracker.is_confirmed(&[partition])
            && !self.tracker.any_behind()
    }
}

fn sink(shard: usize) -> SinkId {
    SinkId(shard.try_into().unwrap_or(0))
}
