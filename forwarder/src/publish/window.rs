//! Batches handed to a shard and not yet witnessed. Pure.
//!
//! Behind some batches a *marker* is published. A marker that comes back over another node of the shard
//! confirms every batch before it, provided that no marker before it is missing: what travels between
//! two nodes keeps its order, so a missing marker means that messages beside it may be missing too.

use std::collections::VecDeque;

use thiserror::Error;

use super::Batch;

/// A marker did not come back although a later one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "marker {got} came back but {expected} was next: messages may have been lost between two nodes"
)]
pub(crate) struct MarkerGap {
    expected: u64,
    got: u64,
}

/// What one shard has been given and has not confirmed, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Window {
    batches: VecDeque<Batch>,
    /// How many of the batches, from the oldest, have been published in this session.
    sent: usize,
    /// Marker numbers that are out, each with the count of `sent` batches it confirms.
    markers: VecDeque<(u64, usize)>,
    next_marker: u64,
}

impl Window {
    /// Takes in a batch to be published.
    pub(crate) fn push(&mut self, batch: Batch) {
        self.batches.push_back(batch);
    }

    /// The oldest batch that this session has not published yet.
    pub(crate) fn unsent(&self) -> Option<&Batch> {
        self.batches.get(self.sent)
    }

    /// Notes that [`Self::unsent`] is published.
    pub(crate) fn sent(&mut self) {
        self.sent = (self.sent + 1).min(self.batches.len());
    }

    /// The batch that was noted by [`Self::sent`] last.
    pub(crate) fn last_sent(&self) -> Option<&Batch> {
        self.batches.get(self.sent.checked_sub(1)?)
    }

    /// The number of the marker to publish now; it confirms all that has been sent.
    pub(crate) fn mark(&mut self) -> u64 {
        let number = self.next_marker;
        self.next_marker += 1;
        self.markers.push_back((number, self.sent));
        number
    }

    /// Takes out the batches that a marker confirms. A marker of long ago confirms nothing more.
    pub(crate) fn confirm(
        &mut self,
        number: u64,
    ) -> Result<impl Iterator<Item = Batch> + '_, MarkerGap> {
        let confirmed = match self.markers.front() {
            Some(&(expected, _)) if number > expected => {
                return Err(MarkerGap {
                    expected,
                    got: number,
                });
            }
            Some(&(expected, count)) if number == expected => {
                self.markers.pop_front();
                count
            }
            _ => 0,
        };
        for (_, count) in &mut self.markers {
            *count -= confirmed;
        }
        self.sent -= confirmed;
        Ok(self.batches.drain(..confirmed))
    }

    /// Begins a new session: everything here is to be published again, in order.
    pub(crate) fn restart(&mut self) {
        self.sent = 0;
        self.markers.clear();
        self.next_marker = 0;
    }

    /// Whether a marker is out.
    pub(crate) fn awaits_marker(&self) -> bool {
        !self.markers.is_empty()
    }

    /// Whether nothing is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Headers and payload of the largest frame here, in bytes.
    pub(crate) fn largest(&self) -> usize {
        self.batches.iter().map(Batch::largest).max().unwrap_or(0)
    }
}

/// Mistakes that the simulation puts in on purpose.
#[cfg(test)]
impl Window {
    pub(crate) fn forget(&mut self) {
        self.batches.clear();
    }

    pub(crate) fn keep_newest(&mut self) {
        self.batches.drain(..self.batches.len().saturating_sub(1));
    }

    pub(crate) fn reverse(&mut self) {
        self.batches.make_contiguous().reverse();
    }

    pub(crate) fn skip_markers_before(&mut self, number: u64) {
        self.markers.retain(|(marker, _)| *marker >= number);
    }

    pub(crate) fn widen_marker(&mut self, number: u64) {
        if let Some(marker) = self.markers.front_mut().filter(|marker| marker.0 == number) {
            self.sent = self.batches.len();
            marker.1 = self.sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::route::Tenure;

    fn batch(offset: i64) -> Batch {
        let mut batch = Batch::new(Vec::new());
        batch.note(0, Tenure(0), offset, 1);
        batch
    }

    fn offsets(batches: impl Iterator<Item = Batch>) -> Vec<i64> {
        batches.map(|batch| batch.spans()[0].first).collect()
    }

    #[test]
    fn a_marker_confirms_what_was_sent_before_it() {
        let mut window = Window::default();
        (0..3).for_each(|offset| window.push(batch(offset)));
        window.sent();
        let first = window.mark();
        window.sent();
        window.sent();
        let second = window.mark();
        assert_eq!(offsets(window.confirm(first).unwrap()), [0]);
        assert_eq!(offsets(window.confirm(first).unwrap()), [] as [i64; 0]);
        assert_eq!(offsets(window.confirm(second).unwrap()), [1, 2]);
        assert!(window.is_empty());
    }

    #[test]
    fn a_missing_marker_confirms_nothing() {
        let mut window = Window::default();
        window.push(batch(0));
        window.sent();
        window.mark();
        let second = window.mark();
        assert!(window.confirm(second).is_err());
        assert!(!window.is_empty());
    }

    #[test]
    fn a_new_session_sends_everything_again() {
        let mut window = Window::default();
        (0..2).for_each(|offset| window.push(batch(offset)));
        window.sent();
        window.mark();
        window.restart();
        assert!(!window.awaits_marker());
        assert_eq!(window.unsent().unwrap().spans()[0].first, 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Send,
        Mark,
        Confirm,
        Restart,
    }

    proptest! {
        /// Whatever happens, batches leave in order, each once, and only after they were sent and marked.
        #[test]
        fn batches_leave_in_order_and_once(steps in proptest::collection::vec(prop_oneof![
            Just(Step::Push), Just(Step::Send), Just(Step::Mark), Just(Step::Confirm), Just(Step::Restart)], 1..200)) {
            let (mut window, mut pushed, mut left) = (Window::default(), 0, Vec::new());
            let (mut sent, mut out) = (0, VecDeque::new());
            for step in steps {
                match step {
                    Step::Push => { window.push(batch(pushed)); pushed += 1; }
                    Step::Send => if window.unsent().is_some() { window.sent(); sent += 1; },
                    Step::Mark => out.push_back((window.mark(), left.len() + sent)),
                    Step::Confirm => if let Some((number, upto)) = out.pop_front() {
                        let gone = offsets(window.confirm(number).unwrap());
                        sent -= gone.len();
                        left.extend(gone);
                        prop_assert_eq!(left.len(), upto);
                    },
                    Step::Restart => { window.restart(); sent = 0; out.clear(); }
                }
            }
            let expected: Vec<i64> = (0..left.len() as i64).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
