//! What waits for one client: bounded, and shared with all others that watch the same.
//!
//! Only the id differs from client to client, so it is written when the event is, and what waits costs a client no more
//! than its place. One that falls behind by more than the bound is sent away and resumes by its last id; one that takes nothing for a
//! while is left out before that, and catches up when it takes again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::frame::Frame;
use super::super::queue::{Pushed, STALL};
use super::super::seen::AssetTag;
use super::lane::Offsets;

/// Most bytes of events, and most events, in one write: large enough that a write's own cost no longer counts.
const MAX_WRITE: usize = 64 * 1024;
const MAX_EVENTS: usize = 128;

/// What counts for a notice, in bytes, so that those of a client that takes nothing are bounded too.
const NOTICE: usize = 64;

/// Something for a client, in the order of its asset.
#[derive(Debug, Clone)]
pub(super) enum Waiting {
    /// An event of an asset.
    Event(AssetTag, Arc<Frame>),
    /// Everything of the asset below these offsets has come before.
    Complete(AssetTag, Arc<Offsets>),
}

impl Waiting {
    fn size(&self) -> usize {
        match self {
            Self::Event(_, frame) => frame.size(),
            Self::Complete(..) => NOTICE,
        }
    }
}

/// What a client is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Take this.
    Take(Vec<Waiting>),
    /// Wait.
    Nothing,
    /// Catch up: the client was left out, and what waited is forgotten.
    Behind,
    /// End the connection: the client has fallen behind by too much, or has to come back for other reasons.
    Close,
}

/// What waits for a client.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Notify,
    bound: usize,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Since when the client has taken nothing of it.
    since: Instant,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    LeftOut,
    Closed,
}

impl Inbox {
    /// Room for `bound` bytes; what comes at once to a client that has taken everything always finds place.
    #[must_use]
    pub(super) fn new(bound: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            bytes: 0,
            since: Instant::now(),
            phase: Phase::Open,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            bound,
        }
    }

    /// Adds what came at `now`, if the client is to be given it. The client is woken where it had nothing to do. One that has taken
    /// nothing for [`STALL`] of what waits is left out, and what waits is forgotten.
    pub(super) fn push(&self, items: impl Iterator<Item = Waiting>, now: Instant) -> Pushed {
        let mut state = self.state.lock();
        if let Err(pushed) = state.admit(now) {
            return pushed;
        }
        let was_empty = state.waiting.is_empty();
        let mut pushed = 0;
        for item in items {
            state.bytes += item.size();
            if !was_empty && state.bytes > self.bound {
                state.end(Phase::Closed);
                return Pushed::Behind;
            }
            state.waiting.push_back(item);
            pushed += 1;
        }
        if was_empty && pushed > 0 {
            state.since = now;
            self.changed.notify_one();
        }
        Pushed::Waits(pushed)
    }

    /// Sends the client away; what waits is forgotten.
    pub(super) fn close(&self) {
        self.state.lock().end(Phase::Closed);
        self.changed.notify_one();
    }

    /// What there is to do now.
    pub(super) fn take(&self) -> Next {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {}
            Phase::LeftOut => return Next::Behind,
            Phase::Closed => return Next::Close,
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(item) = state.waiting.front()
            && (taken.is_empty() || bytes + item.size() <= MAX_WRITE)
            && taken.len() < MAX_EVENTS
        {
            bytes += item.size();
            taken.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        if taken.is_empty() {
            return Next::Nothing;
        }
        if state.waiting.is_empty() {
            // A client that has taken everything keeps no room: there are many, and most are quiet.
            state.waiting = VecDeque::new();
        }
        state.since = Instant::now();
        Next::Take(taken)
    }

    /// Waits until [`Inbox::take`] may have something else to say.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl State {
    fn admit(&mut self, now: Instant) -> Result<(), Pushed> {
        if self.phase != Phase::Open {
            return Err(Pushed::Closed);
        }
        let is_stalled =
            !self.waiting.is_empty() && now.saturating_duration_since(self.since) >= STALL;
        if is_stalled {
            self.end(Phase::LeftOut);
            return Err(Pushed::Behind);
        }
        Ok(())
    }

    /// Nothing is taken in any more.
    fn end(&mut self, phase: Phase) {
        self.waiting = VecDeque::new();
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(offset: u64, length: usize) -> Waiting {
        let value = vec![b'x'; length];
        let frame = Frame::new((0, offset), "A".into(), None, &value, None);
        Waiting::Event(AssetTag::of("A"), Arc::new(frame))
    }

    fn offsets(items: &[Waiting]) -> Vec<u64> {
        let offset = |item: &Waiting| match item {
            Waiting::Event(_, frame) => Some(frame.offset),
            Waiting::Complete(..) => None,
        };
        items.iter().filter_map(offset).collect()
    }

    proptest! {
        /// Whatever the pace, events come out as they went in, or the inbox says that it is closed.
        #[test]
        fn nothing_is_lost_or_reordered(steps in proptest::collection::vec(proptest::option::of((1..4u64, 1usize..30_000)), 0..60), bound in 0usize..200_000) {
            let inbox = Inbox::new(bound);
            let (mut pushed, mut taken, mut closed) = (Vec::new(), Vec::new(), false);
            let mut next = 0;
            for step in steps {
                match step {
                    Some((count, length)) => {
                        let offsets = next..next + count;
                        next += count;
                        let events = offsets.clone().map(|offset| event(offset, length));
                        match inbox.push(events, Instant::now()) {
                            Pushed::Waits(waits) => {
                                prop_assert_eq!(waits, count);
                                pushed.extend(offsets);
                            }
                            Pushed::Behind => {
                                prop_assert!(!closed && pushed.len() > taken.len());
                                closed = true;
                            }
                            Pushed::Closed => prop_assert!(closed),
                        }
                    }
                    None => if let Next::Take(items) = inbox.take() {
                        taken.extend(offsets(&items));
                    },
                }
            }
            while let Next::Take(items) = inbox.take() {
                taken.extend(offsets(&items));
            }
            if closed {
                prop_assert!(pushed.starts_with(&taken));
                prop_assert!(matches!(inbox.take(), Next::Close));
            } else {
                prop_assert_eq!(taken, pushed);
                prop_assert!(matches!(inbox.take(), Next::Nothing));
            }
        }
    }
}
