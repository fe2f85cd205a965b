//! What several topics have of a client's assets, in one order: that of the source.
//!
//! The topics are made from the source one record after the other, so each has the records of a partition of it in the source's
//! order. Where topics have fewer partitions than the source, several of its partitions are in one of theirs, and what is read
//! ahead tells which of two records has to wait.

use std::collections::VecDeque;
use std::sync::Arc;

use ofa_crds::Cursor;
use rdkafka::message::BorrowedMessage;

use super::super::frame::Frame;
use crate::origin;
use crate::range::Wanted;
use crate::selection::Selection;

/// Most records that are read ahead of a partition to find one of a certain partition of the source.
const MAX_WAITING: usize = 100_000;

/// A client's assets' events, and where they come from.
pub(in crate::group) struct Travel(pub(super) Arc<Selection>);

/// An event, and its record's place in the source.
pub(in crate::group) struct Travelled {
    pub(super) frame: Frame,
    pub(super) source: Option<Cursor>,
}

impl Wanted for Travel {
    type Item = Travelled;

    fn assets(&self) -> Option<Vec<Arc<str>>> {
        Wanted::assets(&*self.0)
    }

    fn wants_asset(&self, asset: &str) -> bool {
        self.0.wants_asset(asset)
    }

    fn read(asset: &str, record: &BorrowedMessage<'_>) -> Option<Travelled> {
        Some(Travelled {
            frame: <Selection as Wanted>::read(asset, record)?,
            source: origin::source(record),
        })
    }

    fn wants(&self, item: &Travelled) -> bool {
        self.0.wants(&item.frame)
    }

    fn size(item: &Travelled) -> usize {
        <Selection as Wanted>::size(&item.frame)
    }
}

/// A partition of a topic.
pub(super) struct Queue {
    /// Which of the client's topics.
    pub(super) topic: usize,
    pub(super) partition: u32,
    /// What is read ahead.
    waiting: VecDeque<Arc<Travelled>>,
    /// The offset that is read next.
    pub(super) next: u64,
    /// Everything before this offset is to come.
    to: u64,
    /// And everything before this one that comes before something of that.
    pub(super) end: u64,
}

/// Partitions of several topics.
pub(super) struct Merge(Vec<Queue>);

/// What is next.
pub(super) enum Next<'a> {
    /// More has to be read of this one.
    Read(&'a mut Queue),
    /// An event, and which of the client's topics it is of.
    Event(usize, Arc<Travelled>),
    /// Everything has come.
    Nothing,
}

impl Queue {
    /// Reads a partition from `next` on.
    pub(super) fn new(topic: usize, partition: u32, next: u64, to: u64, end: u64) -> Self {
        Self {
            topic,
            partition,
            waiting: VecDeque::new(),
            next,
            to,
            end: end.max(to),
        }
    }

    /// Takes in what was read, and where reading goes on.
    pub(super) fn add(&mut self, items: Vec<Arc<Travelled>>, next: u64) {
        self.waiting.extend(items);
        self.next = next;
    }

    /// Up to where everything has come.
    pub(super) fn position(&self) -> u64 {
        let first = self.waiting.front();
        first.map_or(self.next, |first| first.frame.offset)
    }

    fn is_pending(&self) -> bool {
        self.position() < self.to
    }

    /// Whether it is known what comes next here of a partition of the source; of any, without one.
    fn knows(&self, source: Option<&Cursor>) -> bool {
        let is_of = |own: &Cursor| source.is_none_or(|it| is_same(it, own));
        let mut own = self.waiting.iter().filter_map(|it| it.source.as_ref());
        self.next >= self.end || self.waiting.len() >= MAX_WAITING || own.any(is_of)
    }

    /// Whether something here comes before a record.
    fn precedes(&self, source: &Cursor) -> bool {
        let mut own = self.waiting.iter().filter_map(|it| it.source.as_ref());
        own.any(|own| is_same(own, source) && own.offset < source.offset)
    }
}

fn is_same(one: &Cursor, other: &Cursor) -> bool {
    (&one.topic, one.partition) == (&other.topic, other.partition)
}

impl Merge {
    pub(super) fn new(queues: Vec<Queue>) -> Self {
        Self(queues)
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.0.iter()
    }

    /// What is next.
    pub(super) fn next(&mut self) -> Next<'_> {
        let Some(mut at) = self.0.iter().position(Queue::is_pending) else {
            return Next::Nothing;
        };
        // From what is asked for to what comes before that. As there is one order, no queue comes twice.
        for _ in 0..self.0.len() {
            let queue = &self.0[at];
            if !queue.knows(None) {
                return Next::Read(&mut self.0[at]);
            }
            let first = queue.waiting.front();
            let source = first.and_then(|first| first.source.as_ref());
            let Some(source) = source else { break };
            // What is of different partitions is of different partitions of the source too.
            let others = (0..).zip(&self.0);
            let mut others =
                others.filter(|(it, other)| *it != at && other.partition == queue.partition);
            let earlier =
                others.find(|(_, other)| !other.knows(Some(source)) || other.precedes(source));
            match earlier.map(|(it, other)| (it, other.knows(Some(source)))) {
                None => break,
                Some((it, true)) => at = it,
                Some((it, false)) => return Next::Read(&mut self.0[it]),
            }
        }
        let queue = &mut self.0[at];
        match queue.waiting.pop_front() {
            Some(event) => Next::Event(queue.topic, event),
            None => Next::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(offset: u64, source: (u32, u64)) -> Arc<Travelled> {
        let frame = Frame::new((0, offset), "A".into(), None, b"{}", None);
        let source = format!("s/{}/{}", source.0, source.1).parse().ok();
        Arc::new(Travelled { frame, source })
    }

    proptest! {
        /// However an asset goes from one group to another, and however much of it is read at a time, what it has sent comes in
        /// its order, and all of it that stood there when reading began.
        #[test]
        fn what_several_topics_have_comes_in_the_sources_order(
            records in proptest::collection::vec((0usize..3, 0u32..2), 0..60),
            partitions in 1u32..=2,
            page in 1usize..7,
            later in 0usize..10,
        ) {
            let mut topics: [Vec<Arc<Travelled>>; 3] = Default::default();
            let mut expected = [Vec::new(), Vec::new()];
            let asked = records.len().saturating_sub(later);
            let mut to = [0; 3];
            for (number, (topic, partition)) in (0..).zip(records) {
                let partition = partition % partitions;
                let offset = topics[topic].len() as u64;
                topics[topic].push(event(offset, (partition, number as u64)));
                expected[partition as usize].push(number as u64);
                if number < asked {
                    to[topic] = offset + 1;
                }
            }
            let queues = (0..).zip(&topics).map(|(topic, records)| {
                Queue::new(topic, 0, 0, to[topic], records.len() as u64)
            });
            let mut merge = Merge::new(queues.collect());
            let mut found = [Vec::new(), Vec::new()];
            loop {
                match merge.next() {
                    Next::Read(queue) => {
                        let from = usize::try_from(queue.next).unwrap();
                        let to = topics[queue.topic].len().min(from + page);
                        queue.add(topics[queue.topic][from..to].to_vec(), to as u64);
                    }
                    Next::Event(_, event) => {
                        let source = event.source.as_ref().unwrap();
                        found[source.partition as usize].push(source.offset);
                    }
                    Next::Nothing => break,
                }
            }
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!(expected.starts_with(found), "{:?} of {:?}", found, expected);
                let asked = expected.iter().filter(|number| **number < asked as u64).count();
                prop_assert!(found.len() >= asked);
            }
        }
    }
}
