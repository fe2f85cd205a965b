//! What waits for one client: bounded, and written together in as few pieces as the client's pace allows.
//!
//! A client that keeps up gets each event by itself, as it is. While one is being written, others gather, and
//! the next write takes them all. One that falls behind by more than the bound is closed: its connection ends
//! and it resumes by its last id, which costs nobody else anything.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Most bytes in one write: large enough that a write's own cost no longer counts.
const MAX_WRITE: usize = 64 * 1024;

/// A queue with one producer and one client.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    bound: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// It was too much: the queue is closed now.
    Overflowed,
    /// The queue was closed before.
    Closed,
}

/// What a client is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write this.
    Write(Bytes),
    /// Wait.
    Nothing,
    /// End the connection: the client has fallen behind.
    Close,
}

impl Queue {
    /// A queue for `bound` bytes; a single frame always finds place.
    #[must_use]
    pub(super) fn new(bound: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Notify::new(),
            bound,
        }
    }

    /// Adds a frame. The client is woken where it had nothing to do.
    pub(super) fn push(&self, frame: Bytes) -> Pushed {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Pushed::Closed;
        }
        let was_empty = waiting.frames.is_empty();
        waiting.bytes += frame.len();
        if !was_empty && waiting.bytes > self.bound {
            drop(waiting);
            self.close();
            return Pushed::Overflowed;
        }
        waiting.frames.push_back(frame);
        if was_empty {
            self.changed.notify_one();
        }
        Pushed::Waits
    }

    /// Sends the client away; what waits is forgotten.
    pub(super) fn close(&self) {
        *self.waiting.lock() = Waiting {
            closed: true,
            ..Waiting::default()
        };
        self.changed.notify_one();
    }

    /// What there is to write now, at most [`MAX_WRITE`] bytes unless a single frame is longer.
    pub(super) fn take(&self) -> Next {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Next::Close;
        }
        let Some(first) = waiting.frames.pop_front() else {
            return Next::Nothing;
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
        Next::Write(write.freeze())
    }

    /// Whether the client has taken everything that it was given.
    pub(super) fn is_quiet(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.frames.is_empty() && !waiting.closed
    }

    /// Waits until [`Queue::take`] may have something else to say.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_that_falls_behind_is_closed_and_forgotten() {
        let queue = Queue::new(10);
        assert_eq!(
            queue.push(Bytes::from_static(b"longer than the bound")),
            Pushed::Waits
        );
        assert_eq!(queue.push(Bytes::from_static(b"x")), Pushed::Overflowed);
        assert_eq!(queue.push(Bytes::from_static(b"x")), Pushed::Closed);
        assert_eq!(queue.take(), Next::Close);
        // What it was given last, it has not got: nobody may tell it otherwise.
        assert!(!queue.is_quiet());
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
                        match queue.push(Bytes::from(frame.clone())) {
                            Pushed::Waits => pushed.extend(frame),
                            Pushed::Overflowed => {
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
