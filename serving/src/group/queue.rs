//! What waits for one client: bounded, and written together in as few pieces as the client's pace allows.
//!
//! A client that keeps up gets each event by itself, as it is. While one is being written, others gather, and
//! the next write takes them all. One that falls behind by more than the bound is closed: its connection ends
//! and it resumes by its last id. One that takes nothing for a while is left out before that: it is given what it has missed when it
//! takes again, and until then costs nobody else anything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::position::Position;

/// Most bytes in one write: large enough that a write's own cost no longer counts.
const MAX_WRITE: usize = 64 * 1024;

/// How long a client may take nothing of what waits for it: several times as long as its turn to write takes among thousands of busy
/// ones, and short beside the half minute after which its connection is cut off.
pub(super) const STALL: Duration = Duration::from_millis(500);

/// A queue with one producer and one client.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    bound: usize,
}

#[derive(Debug)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Since when the client has taken nothing of the frames.
    since: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// No frame comes any more after what waits.
    LeftOut(Box<Position>),
    Closed,
}

/// What became of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// So many were added to what waits.
    Waits(u64),
    /// The client has fallen behind: from now on the queue takes no more.
    Behind,
    /// The queue takes no more since before.
    Closed,
}

/// What a client is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write this.
    Write(Bytes),
    /// Wait.
    Nothing,
    /// Catch up from here: the client was left out.
    Behind(Position),
    /// End the connection: the client has fallen behind by too much, or has to come back for other reasons.
    Close,
}

impl Queue {
    /// A queue for `bound` bytes; what comes at once to a client that has taken everything always finds place.
    #[must_use]
    pub(super) fn new(bound: usize) -> Self {
        let waiting = Waiting {
            frames: VecDeque::new(),
            bytes: 0,
            since: Instant::now(),
            state: State::Open,
        };
        Self {
            waiting: Mutex::new(waiting),
            changed: Notify::new(),
            bound,
        }
    }

    /// Adds frames that came at `now`, once it was [asked](Self::admit) for. The client is woken where it had nothing to do.
    pub(super) fn push(&self, frames: impl Iterator<Item = Bytes>, now: Instant) -> Pushed {
        let mut waiting = self.waiting.lock();
        if !matches!(waiting.state, State::Open) {
            return Pushed::Closed;
        }
        let was_empty = waiting.frames.is_empty();
        let mut pushed = 0;
        for frame in frames {
            waiting.bytes += frame.len();
            if !was_empty && waiting.bytes > self.bound {
                drop(waiting);
                self.close();
                return Pushed::Behind;
            }
            waiting.frames.push_back(frame);
            pushed += 1;
        }
        if was_empty && pushed > 0 {
            waiting.since = now;
            self.changed.notify_one();
        }
        Pushed::Waits(pushed)
    }

    /// Whether the client is to be given what comes at `now`, behind `position`. One that has taken nothing for [`STALL`] of what waits
    /// is left out from there on.
    pub(super) fn admit(&self, position: &Position, now: Instant) -> Result<(), Pushed> {
        let mut waiting = self.waiting.lock();
        if !matches!(waiting.state, State::Open) {
            return Err(Pushed::Closed);
        }
        let is_stalled =
            !waiting.frames.is_empty() && now.saturating_duration_since(waiting.since) >= STALL;
        if is_stalled {
            waiting.state = State::LeftOut(Box::new(position.clone()));
            return Err(Pushed::Behind);
        }
        Ok(())
    }

    /// Sends the client away; what waits is forgotten.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.frames = VecDeque::new();
        waiting.state = State::Closed;
        drop(waiting);
        self.changed.notify_one();
    }

    /// What there is to write now, at most [`MAX_WRITE`] bytes unless a single frame is longer.
    pub(super) fn take(&self) -> Next {
        let mut waiting = self.waiting.lock();
        let Some(first) = waiting.frames.pop_front() else {
            return match &waiting.state {
                State::Open => Next::Nothing,
                State::LeftOut(position) => Next::Behind(Position::clone(position)),
                State::Closed => Next::Close,
            };
        };
        waiting.bytes -= first.len();
        if waiting.frames.is_empty() {
            waiting.frames = VecDeque::new();
            return Next::Write(first);
        }
        let mut write = BytesMut::from(first);
        while let Some(frame) = waiting.frames.front()
            && write.len() + frame.len() <= MAX_WRITE
        {
            write.extend_from_slice(frame);
            waiting.bytes -= frame.len();
            waiting.frames.pop_front();
        }
        if waiting.frames.is_empty() {
            // A client that has taken everything keeps no room: there are many, and most are quiet.
            waiting.frames = VecDeque::new();
        }
        waiting.since = Instant::now();
        Next::Write(write.freeze())
    }

    /// Whether the client has taken everything that it was given, and is given all that comes.
    pub(super) fn is_quiet(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.frames.is_empty() && matches!(waiting.state, State::Open)
    }

    /// Waits until [`Queue::take`] may have something else to say.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_that_falls_behind_is_closed_and_forgotten() {
        let queue = Queue::new(10);
        let push = |frame| queue.push(iter::once(Bytes::from_static(frame)), Instant::now());
        assert_eq!(push(b"longer than the bound"), Pushed::Waits(1));
        assert_eq!(push(b"x"), Pushed::Behind);
        assert_eq!(push(b"x"), Pushed::Closed);
        assert_eq!(queue.take(), Next::Close);
        // What it was given last, it has not got: nobody may tell it otherwise.
        assert!(!queue.is_quiet());
    }

    #[test]
    fn one_that_takes_nothing_is_left_out_and_goes_on_from_there() {
        let queue = Queue::new(10);
        let (position, begun) = (Position::new("t", vec![7]), Instant::now());
        let admit = |after| queue.admit(&position, begun + after);
        assert_eq!(admit(STALL), Ok(()));
        let frames = [&b"a"[..], b"b"].map(Bytes::from_static);
        queue.push(frames.into_iter(), begun);
        assert_eq!(admit(STALL / 2), Ok(()));
        assert_eq!(admit(STALL), Err(Pushed::Behind));
        assert_eq!(admit(STALL * 2), Err(Pushed::Closed));
        let more = iter::once(Bytes::from_static(b"c"));
        assert_eq!(queue.push(more, begun + STALL), Pushed::Closed);
        assert_eq!(queue.take(), Next::Write(Bytes::from_static(b"ab")));
        assert!(!queue.is_quiet());
        assert_eq!(queue.take(), Next::Behind(position.clone()));
    }

    #[test]
    fn one_that_takes_something_is_not_left_out() {
        let queue = Queue::new(1 << 20);
        let (position, begun) = (Position::new("t", vec![7]), Instant::now());
        let frame = Bytes::from(vec![b'x'; MAX_WRITE]);
        queue.push(iter::repeat_n(frame, 2), begun.checked_sub(STALL).unwrap());
        assert!(matches!(queue.take(), Next::Write(_)));
        assert_eq!(queue.admit(&position, Instant::now()), Ok(()));
        assert!(matches!(queue.take(), Next::Write(_)));
        assert_eq!(queue.admit(&position, Instant::now() + STALL), Ok(()));
    }

    proptest! {
        /// Whatever the pace of writes, the bytes come out as they went in, or the queue says that it is closed.
        #[test]
        fn nothing_is_lost_or_reordered(steps in proptest::collection::vec(proptest::option::of(1usize..30_000), 0..60), bound in 0usize..200_000) {
            let queue = Queue::new(bound);
            let (mut pushed, mut written, mut closed) = (Vec::new(), Vec::new(), false);
            for (index, step) in steps.into_iter().enumerate() {
                match step {
                    Some(length) => {
                        let frame = vec![u8::try_from(index).unwrap(); length];
                        match queue.push(iter::once(Bytes::from(frame.clone())), Instant::now()) {
                            Pushed::Waits(count) => {
                                prop_assert_eq!(count, 1);
                                pushed.extend(frame);
                            }
                            Pushed::Behind => {
                                prop_assert!(pushed.len() + length - written.len() > bound);
                                closed = true;
                            }
                            Pushed::Closed => prop_assert!(closed),
                        }
                    }
                    None => if let Next::Write(bytes) = queue.take() {
                        prop_assert!(bytes.len() <= MAX_WRITE);
                        written.extend_from_slice(&bytes);
                    },
                }
            }
            while let Next::Write(bytes) = queue.take() {
                written.extend_from_slice(&bytes);
            }
            if closed {
                prop_assert!(pushed.starts_with(&written));
                prop_assert_eq!(queue.take(), Next::Close);
            } else {
                prop_assert_eq!(written, pushed);
            }
        }
    }
}
