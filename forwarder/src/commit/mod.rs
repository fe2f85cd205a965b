//! Stage 4, commit: how far each partition may be committed. Pure.

mod position;

use std::collections::{BTreeMap, VecDeque};

use crate::publish::{Confirmed, SinkId, Span};
use crate::route::Tenure;

pub(crate) use position::{CommittedPosition, Metadata};

/// The offsets of one partition that are on their way.
#[derive(Debug)]
struct Partition {
    tenure: Tenure,
    /// The offset behind the last record taken; `None` before the first one.
    next: Option<i64>,
    /// First and last offset of each batch that a sink has and has not confirmed, oldest first.
    on_the_way: BTreeMap<SinkId, VecDeque<(i64, i64)>>,
    /// Sinks that are handed nothing at present, each with the first offset it has not been handed.
    behind: BTreeMap<SinkId, i64>,
    /// What was last handed to Kafka to be committed.
    committed: Option<CommittedPosition>,
    draining: bool,
}

impl Partition {
    /// The offset to go on from after a crash: the smallest that some sink may not have.
    fn watermark(&self) -> Option<i64> {
        let oldest = self
            .on_the_way
            .values()
            .filter_map(|spans| spans.front())
            .map(|span| span.0)
            .min();
        let behind = self.behind.values().copied().min();
        oldest.into_iter().chain(behind).chain(self.next).min()
    }

    /// The same over the sinks that are not behind.
    fn head(&self) -> Option<i64> {
        let keeping_up = self
            .on_the_way
            .iter()
            .filter(|(sink, _)| !self.behind.contains_key(sink));
        keeping_up
            .filter_map(|(_, spans)| spans.front())
            .map(|span| span.0)
            .chain(self.next)
            .min()
    }

    /// Where a sink that is behind stands: its oldest offset on the way, or the first it was not handed.
    fn stands_at(&self, sink: SinkId, behind: i64) -> i64 {
        let oldest = self.on_the_way.get(&sink).and_then(VecDeque::front);
        oldest.map_or(behind, |span| span.0.min(behind))
    }

    fn position(&self) -> Option<CommittedPosition> {
        let behind = self
            .behind
            .iter()
            .map(|(&sink, &offset)| (sink, self.stands_at(sink, offset)));
        Some(CommittedPosition {
            offset: self.watermark()?,
            head: self.head()?,
            behind: behind.collect(),
        })
    }

    fn is_confirmed(&self) -> bool {
        self.on_the_way.values().all(VecDeque::is_empty)
    }
}

/// What is known of the partitions this forwarder reads.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    partitions: BTreeMap<i32, Partition>,
    tenures: u64,
}

impl Tracker {
    /// A partition is read from now on; whatever was known of it before counts no more.
    pub(crate) fn assign(&mut self, partition: i32) {
        self.tenures += 1;
        let fresh = Partition {
            tenure: Tenure(self.tenures),
            next: None,
            on_the_way: BTreeMap::new(),
            behind: BTreeMap::new(),
            committed: None,
            draining: false,
        };
        self.partitions.insert(partition, fresh);
    }

    /// A partition is about to be let go: nothing more of it is taken.
    pub(crate) fn drain(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.draining = true;
        }
    }

    /// A partition is read no more. Confirmations still to come for it count for nothing.
    pub(crate) fn remove(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// The tenure to take a partition's records under; `None` when they are not ours to take.
    pub(crate) fn tenure(&self, partition: i32) -> Option<Tenure> {
        self.partitions
            .get(&partition)
            .filter(|found| !found.draining)
            .map(|found| found.tenure)
    }

    /// The offset behind the last record taken of a partition.
    pub(crate) fn next(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.next
    }

    /// Everything below `offset` was taken before, under another tenure.
    pub(crate) fn start_at(&mut self, partition: i32, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.next = Some(offset);
        }
    }

    /// A record has been taken: it went into a batch, or nowhere, or a sink is behind with it.
    pub(crate) fn taken(&mut self, partition: i32, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.next = Some(offset + 1);
        }
    }

    /// A batch has been handed to a sink.
    pub(crate) fn handed_over(&mut self, sink: SinkId, spans: &[Span]) {
        for span in spans {
            if let Some(partition) = self.live(span) {
                partition
                    .on_the_way
                    .entry(sink)
                    .or_default()
                    .push_back((span.first, span.last));
            }
        }
    }

    /// A sink has confirmed a batch. Sinks confirm in the order they were handed batches.
    pub(crate) fn confirmed(&mut self, confirmed: &Confirmed) {
        for span in &confirmed.spans {
            if let Some(partition) = self.live(span)
                && let Some(spans) = partition.on_the_way.get_mut(&confirmed.sink)
                && spans.front() == Some(&(span.first, span.last))
            {
                spans.pop_front();
            }
        }
    }

    /// A sink is not handed a record, nor any later one of the partition until it has caught up.
    pub(crate) fn fall_behind(&mut self, partition: i32, sink: SinkId, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.behind.entry(sink).or_insert(offset);
        }
    }

    /// Partitions that a sink is behind in, each with its tenure and the first offset not handed over.
    pub(crate) fn behind(&self, sink: SinkId) -> Vec<(i32, Tenure, i64)> {
        let of_sink =
            |(&id, found): (&i32, &Partition)| Some((id, found.tenure, *found.behind.get(&sink)?));
        self.partitions
            .iter()
            .filter(|(_, found)| !found.draining)
            .filter_map(of_sink)
            .collect()
    }

    /// A sink that is behind has been handed everything of a partition below `offset`. Returns whether it
    /// has caught up with what has been taken; it is handed records as they are taken from then on.
    pub(crate) fn catch_up(&mut self, partition: i32, sink: SinkId, offset: i64) -> bool {
        let Some(partition) = self.partitions.get_mut(&partition) else {
            return true;
        };
        let caught_up = partition.next.is_none_or(|next| offset >= next);
        if caught_up {
            partition.behind.remove(&sink);
        } else if let Some(behind) = partition.behind.get_mut(&sink) {
            *behind = offset;
        }
        caught_up
    }

    /// Whether a sink has anything on its way.
    pub(crate) fn is_on_the_way(&self, sink: SinkId) -> bool {
        self.partitions.values().any(|found| {
            found
                .on_the_way
                .get(&sink)
                .is_some_and(|spans| !spans.is_empty())
        })
    }

    /// Whether any sink is behind.
    pub(crate) fn any_behind(&self) -> bool {
        self.partitions
            .values()
            .any(|found| !found.behind.is_empty())
    }

    /// Whether everything handed over of these partitions is confirmed.
    pub(crate) fn is_confirmed(&self, partitions: &[i32]) -> bool {
        partitions
            .iter()
            .filter_map(|id| self.partitions.get(id))
            .all(Partition::is_confirmed)
    }

    /// Positions of these partitions.
    pub(crate) fn positions(&self, partitions: &[i32]) -> Vec<(i32, CommittedPosition)> {
        let position = |id: &i32| Some((*id, self.partitions.get(id)?.position()?));
        partitions.iter().filter_map(position).collect()
    }

    /// Positions of these partitions that have changed since they were last committed.
    pub(crate) fn uncommitted(&self, partitions: &[i32]) -> Vec<(i32, CommittedPosition)> {
        let mut positions = self.positions(partitions);
        positions.retain(|(id, position)| self.partitions[id].committed.as_ref() != Some(position));
        positions
    }

    /// These positions have been handed to Kafka.
    pub(crate) fn note_committed(&mut self, positions: Vec<(i32, CommittedPosition)>) {
        for (id, position) in positions {
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.committed = Some(position);
            }
        }
    }

    /// A commit failed: all positions have to be committed again.
    pub(crate) fn forget_committed(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.committed = None;
        }
    }

    /// Partitions that are read, draining ones included.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// Each partition's watermark, where it has one.
    pub(crate) fn watermarks(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions
            .iter()
            .filter_map(|(id, partition)| Some((*id, partition.watermark()?)))
    }

    fn live(&mut self, span: &Span) -> Option<&mut Partition> {
        self.partitions
            .get_mut(&span.partition)
            .filter(|partition| partition.tenure == span.tenure)
    }
}

#[cfg(test)]
mod tests;
