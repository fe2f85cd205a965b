//! How far each partition of the source has been taken, and how far that is committed. Pure.

use std::collections::BTreeMap;

/// Offsets by partition.
#[derive(Debug, Default)]
pub(crate) struct Positions(BTreeMap<i32, Position>);

#[derive(Debug, Clone, Copy)]
struct Position {
    /// Where to go on from when what was taken since is given up.
    committed: i64,
    /// The offset after the last one taken.
    next: i64,
}

impl Positions {
    /// A record is part of the open transaction, or needs none.
    pub(crate) fn taken(&mut self, partition: i32, offset: i64) {
        self.0
            .entry(partition)
            .or_insert(Position {
                committed: offset,
                next: offset,
            })
            .next = offset + 1;
    }

    /// Offsets to commit with the transaction.
    pub(crate) fn uncommitted(&self) -> Vec<(i32, i64)> {
        self.moved(|position| position.next)
    }

    /// The transaction was committed.
    pub(crate) fn committed(&mut self) {
        for position in self.0.values_mut() {
            position.committed = position.next;
        }
    }

    /// Whether the transaction was committed, by the offsets that Kafka has now: they are committed together or not at all.
    pub(crate) fn are_committed(&self, now: &[(i32, Option<i64>)]) -> bool {
        let uncommitted = self.uncommitted();
        let is_done = |&(partition, next): &(i32, i64)| {
            let found = now.iter().find(|(other, _)| *other == partition);
            found.is_some_and(|&(_, offset)| offset.is_some_and(|offset| offset >= next))
        };
        !uncommitted.is_empty() && uncommitted.iter().all(is_done)
    }

    /// The transaction was aborted. Returns the offsets to read again from.
    pub(crate) fn rewind(&mut self) -> Vec<(i32, i64)> {
        let back = self.moved(|position| position.committed);
        for position in self.0.values_mut() {
            position.next = position.committed;
        }
        back
    }

    /// Offset up to which a partition's records are derived for good.
    pub(crate) fn watermarks(&self) -> impl Iterator<Item = (i32, i64)> {
        self.0
            .iter()
            .map(|(&partition, position)| (partition, position.committed))
    }

    /// The partition is another's.
    pub(crate) fn remove(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    fn moved(&self, offset: impl Fn(&Position) -> i64) -> Vec<(i32, i64)> {
        let moved = self
            .0
            .iter()
            .filter(|(_, position)| position.next != position.committed);
        moved
            .map(|(&partition, position)| (partition, offset(position)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_of_unknown_end_is_done_when_all_its_offsets_are_there() {
        let mut positions = Positions::default();
        assert!(!positions.are_committed(&[(0, Some(7))]));
        positions.taken(0, 10);
        positions.taken(1, 5);
        assert!(positions.are_committed(&[(0, Some(11)), (1, Some(6))]));
        assert!(!positions.are_committed(&[(0, Some(11)), (1, Some(5))]));
        assert!(!positions.are_committed(&[(0, Some(11)), (1, None)]));
        assert!(!positions.are_committed(&[(0, Some(11))]));
    }

    #[test]
    fn what_is_given_up_is_read_again_from_its_first_record() {
        let mut positions = Positions::default();
        positions.taken(0, 10);
        positions.taken(0, 13);
        positions.taken(1, 5);
        assert_eq!(positions.uncommitted(), [(0, 14), (1, 6)]);
        positions.committed();
        assert_eq!(positions.uncommitted(), []);
        positions.taken(1, 6);
        positions.taken(2, 0);
        assert_eq!(positions.rewind(), [(1, 6), (2, 0)]);
        assert_eq!(positions.uncommitted(), []);
        positions.taken(1, 6);
        assert_eq!(positions.uncommitted(), [(1, 7)]);
    }
}
