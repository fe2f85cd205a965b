//! The newest events of each partition in memory, found by asset.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::frame::Frame;

/// The newest events of all partitions, within a bound in bytes.
#[derive(Debug)]
pub(super) struct Ring {
    partitions: Vec<Partition>,
    partition_bytes: usize,
}

#[derive(Debug)]
struct Partition {
    /// The first offset that is covered: every event from here on is in memory.
    start: u64,
    bytes: usize,
    order: VecDeque<Arc<Frame>>,
    by_asset: HashMap<Arc<str>, VecDeque<Arc<Frame>>>,
}

impl Ring {
    /// An empty ring that covers each partition from its offset in `starts` on. `bytes` is shared evenly, so
    /// that a busy partition does not push out the others.
    #[must_use]
    pub(super) fn new(starts: &[u64], bytes: usize) -> Self {
        let partition = |&start: &u64| Partition {
            start,
            bytes: 0,
            order: VecDeque::new(),
            by_asset: HashMap::new(),
        };
        Self {
            partitions: starts.iter().map(partition).collect(),
            partition_bytes: bytes / starts.len().max(1),
        }
    }

    /// Takes the next event of its partition in, and lets the oldest go that no longer fit.
    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        let bound = self.partition_bytes;
        if let Some(partition) = self.partitions.get_mut(frame.partition as usize) {
            partition.push(frame);
            while partition.bytes > bound {
                partition.pop();
            }
        }
    }

    /// The first offset of a partition that is covered.
    #[must_use]
    pub(super) fn start(&self, partition: u32) -> u64 {
        self.partitions
            .get(partition as usize)
            .map_or(0, |partition| partition.start)
    }

    /// An asset's events on a partition from an offset on, in order.
    pub(super) fn since(
        &self,
        partition: u32,
        from: u64,
        asset: &str,
    ) -> impl Iterator<Item = &Arc<Frame>> {
        let frames = self
            .partitions
            .get(partition as usize)
            .and_then(|partition| partition.by_asset.get(asset));
        frames.into_iter().flat_map(move |frames| {
            let first = frames.partition_point(|frame| frame.offset < from);
            frames.range(first..)
        })
    }
}

impl Partition {
    fn push(&mut self, frame: Arc<Frame>) {
        self.bytes += frame.size();
        let of_asset = self.by_asset.entry(Arc::clone(&frame.asset)).or_default();
        of_asset.push_back(Arc::clone(&frame));
        self.order.push_back(frame);
    }

    fn pop(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        self.bytes -= oldest.size();
        self.start = oldest.offset + 1;
        if let Some(of_asset) = self.by_asset.get_mut(&oldest.asset) {
            of_asset.pop_front();
            if of_asset.is_empty() {
                self.by_asset.remove(&oldest.asset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(partition: u32, offset: u64, asset: &str) -> Arc<Frame> {
        Arc::new(Frame::new(
            (partition, offset),
            asset.into(),
            None,
            b"{}",
            None,
        ))
    }

    proptest! {
        /// From any covered offset on, the ring has exactly what was put in.
        #[test]
        fn what_is_covered_is_complete(events in proptest::collection::vec((0u32..3, "[ab]", 1u64..4), 0..80), room in 0usize..40) {
            let mut ring = Ring::new(&[0, 0, 0], room * frame(0, 0, "a").size());
            let mut next = [0u64; 3];
            let mut all = Vec::new();
            for (partition, asset, step) in events {
                let offset = &mut next[partition as usize];
                *offset += step;
                all.push((partition, *offset, asset.clone()));
                ring.push(frame(partition, *offset, &asset));
            }
            for partition in 0..3 {
                for from in ring.start(partition)..next[partition as usize] + 2 {
                    for asset in ["a", "b"] {
                        let found: Vec<u64> = ring.since(partition, from, asset).map(|frame| frame.offset).collect();
                        let expected: Vec<u64> = all.iter()
                            .filter(|(p, offset, a)| *p == partition && *offset >= from && a == asset)
                            .map(|(_, offset, _)| *offset).collect();
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }

        #[test]
        fn memory_is_bounded(count in 0u64..100, room in 0usize..20) {
            let size = frame(0, 0, "a").size();
            let mut ring = Ring::new(&[0], room * size);
            for offset in 0..count {
                ring.push(frame(0, offset, "a"));
            }
            prop_assert_eq!(ring.since(0, 0, "a").count() as u64, count.min(room as u64));
            prop_assert!(ring.partitions[0].bytes <= room * size);
        }
    }
}
