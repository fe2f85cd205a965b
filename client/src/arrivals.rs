//! What has come from the shards and waits for the consumer, in order. Bounded: past it events are let go, and their
//! place is noted.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::event::Event;
use crate::item::Item;
use crate::sequencer::Origin;
use crate::source::Anew;

/// Most events that wait: of a single asset hours, of a busy shard less than a second.
const MAX_EVENTS: usize = 16_384;

/// Most bytes of theirs.
const MAX_BYTES: usize = 16 << 20;

/// Something that a subscription has to take in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// An event, and when it came.
    Event(Event, Origin, Instant),
    /// Another connection than before delivers what follows of this origin.
    Connected(Anew, Origin),
    /// Events that came here were let go, or never came, and nothing else tells of it.
    LetGo,
    /// What follows comes from another shard, which the consumer is to be told.
    Moved(Item),
    /// Nothing more comes from the former shard.
    MoveIsOver,
}

/// A bounded queue of them.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    waiting: VecDeque<Arrival>,
    events: usize,
    bytes: usize,
    /// Until the note of it is taken, all events that come are let go too: they are asked for together.
    lets_go: bool,
}

impl Arrivals {
    /// Takes an event in, or lets it go.
    pub(crate) fn push(&mut self, mut event: Event, origin: Origin, now: Instant) {
        if self.lets_go {
            return;
        }
        if self.events == MAX_EVENTS || self.bytes >= MAX_BYTES {
            self.lets_go = true;
            self.waiting.push_back(Arrival::LetGo);
            return;
        }
        if !self.waiting.is_empty() {
            // Of the connection's buffer, it would keep all that was read with it.
            event.payload = Bytes::copy_from_slice(&event.payload);
        }
        self.events += 1;
        self.bytes += event.size();
        self.waiting.push_back(Arrival::Event(event, origin, now));
    }

    /// Takes anything else in.
    pub(crate) fn note(&mut self, arrival: Arrival) {
        // Connections come and go however long the consumer takes nothing.
        if self.waiting.back() != Some(&arrival) {
            self.waiting.push_back(arrival);
        }
    }

    /// What came first.
    pub(crate) fn next(&mut self) -> Option<Arrival> {
        let arrival = self.waiting.pop_front()?;
        match &arrival {
            Arrival::Event(event, ..) => {
                self.events -= 1;
                self.bytes -= event.size();
            }
            Arrival::LetGo => self.lets_go = false,
            Arrival::Connected(..) | Arrival::Moved(_) | Arrival::MoveIsOver => {}
        }
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(offset: u64, payload: &'static [u8]) -> Event {
        Event {
            payload: Bytes::from_static(payload),
            ..Event::of("a", 0, offset)
        }
    }

    /// Offsets, and `None` where events were let go.
    fn taken(arrivals: &mut Arrivals, count: usize) -> Vec<Option<u64>> {
        let next = || match arrivals.next()? {
            Arrival::Event(event, ..) => Some(event.cursor.map(|it| it.offset)),
            Arrival::LetGo => Some(None),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(next).take(count).collect()
    }

    #[test]
    fn past_the_bound_events_are_let_go_until_that_is_heard() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        let mut offsets = 0_u64..;
        let mut push = |arrivals: &mut Arrivals, count| {
            for offset in offsets.by_ref().take(count) {
                arrivals.push(event(offset, b""), Origin::Current, now);
            }
        };
        push(&mut arrivals, MAX_EVENTS + 5);
        let first = taken(&mut arrivals, MAX_EVENTS);
        assert_eq!(first.last(), Some(&Some(MAX_EVENTS as u64 - 1)));
        push(&mut arrivals, 1);
        assert_eq!(taken(&mut arrivals, 9), [None]);
        push(&mut arrivals, 2);
        let next = MAX_EVENTS as u64 + 6;
        assert_eq!(taken(&mut arrivals, 9), [Some(next), Some(next + 1)]);
        assert_eq!((arrivals.events, arrivals.bytes), (0, 0));
    }

    #[test]
    fn large_events_are_bounded_too() {
        static LARGE: [u8; 1 << 20] = [0; 1 << 20];
        let mut arrivals = Arrivals::default();
        for offset in 0..100 {
            arrivals.push(event(offset, &LARGE), Origin::Current, Instant::now());
        }
        assert_eq!(taken(&mut arrivals, 100).len(), (MAX_BYTES >> 20) + 1);
    }

    #[test]
    fn connections_that_bring_nothing_count_once() {
        let mut arrivals = Arrivals::default();
        for _ in 0..3 {
            arrivals.note(Arrival::Connected(Anew::Again, Origin::Current));
        }
        assert_eq!(
            arrivals.next(),
            Some(Arrival::Connected(Anew::Again, Origin::Current))
        );
        assert_eq!(arrivals.next(), None);
    }
}
