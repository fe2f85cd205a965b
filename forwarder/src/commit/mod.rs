//! Stage 4, commit: how far each partition may be committed. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::publish::{Confirmed, SinkId, Span};
use crate::route::Tenure;

/// The offsets of one partition that are on their way.
#[derive(Debug)]
struct Partition {
    tenure: Tenure,
    /// The offset behind the last record taken; `None` before the first one.
    next: Option<i64>,
    /// First and last offset of each batch that a sink has and has not confirmed, oldest first.
    on_the_way: BTreeMap<SinkId, VecDeque<(i64, i64)>>,
    /// The offset last handed to Kafka to be committed.
    committed: Option<i64>,
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
        oldest.or(self.next)
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
    /// A partition is read from now on.
    pub(crate) fn assign(&mut self, partition: i32) {
        self.tenures += 1;
        let fresh = Partition {
            tenure: Tenure(self.tenures),
            next: None,
            on_the_way: BTreeMap::new(),
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

    /// A record has been taken: it went into a batch or nowhere.
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

    /// Whether everything taken of these partitions is confirmed.
    pub(crate) fn is_confirmed(&self, partitions: &[i32]) -> bool {
        partitions
            .iter()
            .filter_map(|id| self.partitions.get(id))
            .all(Partition::is_confirmed)
    }

    /// Offsets to commit that have not been yet, of these partitions.
    pub(crate) fn uncommitted(&self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let changed = |id: &i32| {
            let found = self.partitions.get(id)?;
            let watermark = found.watermark()?;
            found
                .committed
                .is_none_or(|committed| committed < watermark)
                .then_some((*id, watermark))
        };
        partitions.iter().filter_map(changed).collect()
    }

    /// These offsets have been handed to Kafka.
    pub(crate) fn note_committed(&mut self, offsets: &[(i32, i64)]) {
        for (id, offset) in offsets {
            if let Some(partition) = self.partitions.get_mut(id) {
                partition.committed = Some(*offset);
            }
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
