//! The newest events of one partition in memory, within a bound in bytes, found by asset.
//!
//! Every event knows the one of its asset before it, and an index the newest of each asset that is in memory. So the
//! index has never more entries than the ring, whatever the number of assets, and finding an asset's last events
//! costs as much as there are of them.

use std::collections::{HashMap, VecDeque};

use super::lanes::Lanes;
use super::record::Record;

/// The newest events of a partition.
#[derive(Debug)]
pub(super) struct Ring {
    /// The first offset that is covered: every event from here up to `next` is in memory.
    start: u64,
    next: u64,
    bytes: usize,
    bound: usize,
    entries: VecDeque<Entry>,
    /// How many events have left the ring; the number of the first that is in it.
    gone: u64,
    /// Number of the newest event of each asset in memory, by the asset's hash.
    newest: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Number of the event before with the same hash; it may have left.
    before: Option<u64>,
}

/// Part of what is asked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In order.
    pub(super) records: Vec<Record>,
    /// Everything asked for below this offset is in `records`.
    pub(super) next: u64,
}

impl Ring {
    /// An empty ring that covers everything from `start` on, until more than `bound` bytes have come.
    #[must_use]
    pub(super) fn new(start: u64, bound: usize) -> Self {
        Self {
            start,
            next: start,
            bytes: 0,
            bound,
            entries: VecDeque::new(),
            gone: 0,
            newest: HashMap::new(),
        }
    }

    /// The first offset that is covered.
    #[must_use]
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The offset after the last that is covered.
    #[must_use]
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes in memory.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The record at `offset` has been read; `record` if it is an asset's event.
    pub(super) fn push(&mut self, offset: u64, record: Option<Record>) {
        if offset < self.next {
            return;
        }
        self.next = offset + 1;
        if let Some(record) = record {
            self.bytes += record.size();
            let number = self.gone + self.entries.len() as u64;
            let before = self.newest.insert(record.hash.0, number);
            self.entries.push_back(Entry { record, before });
        }
        while self.bytes > self.bound {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(Entry { record, .. }) = self.entries.pop_front() else {
            return;
        };
        self.bytes -= record.size();
        self.start = record.offset + 1;
        if self.newest.get(&record.hash.0) == Some(&self.gone) {
            self.newest.remove(&record.hash.0);
        }
        self.gone += 1;
    }

    /// What is asked for from `from`, which is covered, up to and without `to`; about `limit` bytes at most.
    #[must_use]
    pub(super) fn page(&self, lanes: &Lanes, from: u64, to: u64, limit: usize) -> Found {
        match lanes.only_assets() {
            Some(assets) => {
                let mut numbers: Vec<u64> = assets
                    .flat_map(|(asset, hash, first)| self.chain(asset, hash.0, first.max(from)))
                    .collect();
                numbers.sort_unstable();
                let entries = numbers.into_iter().filter_map(|number| self.entry(number));
                collect(entries, to, limit)
            }
            None => {
                let first = self.entries.partition_point(|it| it.record.offset < from);
                let entries = self.entries.range(first..);
                collect(entries.filter(|it| lanes.want(&it.record)), to, limit)
            }
        }
    }

    /// Numbers of an asset's events from an offset on, the newest first.
    fn chain(&self, asset: &str, hash: u64, from: u64) -> impl Iterator<Item = u64> {
        let newest = self.newest.get(&hash).copied();
        let numbers = std::iter::successors(newest, |number| self.entry(*number)?.before);
        let covered = numbers.map_while(move |number| {
            let record = &self.entry(number)?.record;
            (record.offset >= from).then_some((number, record))
        });
        covered
            .filter(move |(_, record)| &*record.asset == asset)
            .map(|(number, _)| number)
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        let index = usize::try_from(number.checked_sub(self.gone)?).ok()?;
        self.entries.get(index)
    }
}

fn collect<'a>(entries: impl Iterator<Item = &'a Entry>, to: u64, limit: usize) -> Found {
    let (mut found, mut bytes) = (Found::default(), 0);
    found.next = to;
    for Entry { record, .. } in entries {
        if record.offset >= to {
            break;
        }
        if bytes >= limit {
            found.next = record.offset;
            break;
        }
        bytes += record.size();
        found.records.push(record.clone());
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lanes::for_test as lanes;
    use super::*;

    fn all(ring: &Ring, lanes: &Lanes, from: u64, to: u64, limit: usize) -> Vec<u64> {
        let (mut from, mut offsets) = (from, Vec::new());
        while from < to {
            let found = ring.page(lanes, from, to, limit);
            assert!(found.next > from, "a page gets on");
            from = found.next;
            offsets.extend(found.records.iter().map(|record| record.offset));
        }
        offsets
    }

    proptest! {
        /// From any covered offset on, and in pages of any size, the ring has exactly what was put in.
        #[test]
        fn what_is_covered_is_complete(
            events in proptest::collection::vec((proptest::option::of("[abc]"), 1u64..4), 0..80),
            room in 0usize..40,
            limit in 1usize..2000,
            skew in 0u64..6,
        ) {
            let size = Record::for_test(0, "a").size();
            let mut ring = Ring::new(0, room * size);
            let (mut next, mut log) = (0, Vec::new());
            for (asset, step) in events {
                next += step;
                let record = asset.as_deref().map(|asset| Record::for_test(next, asset));
                log.extend(asset.map(|asset| (next, asset)));
                ring.push(next, record);
                prop_assert!(ring.bytes() <= room * size);
                prop_assert!(ring.newest.len() <= ring.entries.len());
            }
            let to = ring.next();
            for from in ring.start()..to {
                let wanted = lanes(&[("a", from), ("b", from + skew)]);
                let expected: Vec<u64> = log.iter()
                    .filter(|(offset, asset)| (asset == "a" && *offset >= from) || (asset == "b" && *offset >= from + skew))
                    .map(|(offset, _)| *offset).collect();
                prop_assert_eq!(all(&ring, &wanted, from, to, limit), expected);
            }
        }
    }

    #[test]
    fn what_was_read_before_is_not_taken_twice() {
        let mut ring = Ring::new(5, 10_000);
        for offset in [4, 5, 6, 6, 5] {
            ring.push(offset, Some(Record::for_test(offset, "a")));
        }
        assert_eq!(all(&ring, &lanes(&[("a", 0)]), 5, 7, 1), [5, 6]);
    }
}
