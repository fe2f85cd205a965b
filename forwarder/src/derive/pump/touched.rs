//! Counts the partitions that a transaction has written to: each costs the brokers a marker.

use std::time::Duration;

use super::PACE;
use crate::slot::slot;

/// Partitions written to since the last transaction began.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Which transaction is counted.
    transaction: u64,
    /// By group and partition: the last transaction that has written there.
    last: Vec<Vec<u64>>,
    count: u32,
}

impl Touched {
    /// Begins to count anew.
    pub(super) fn begin(&mut self) {
        self.transaction += 1;
        self.count = 0;
    }

    /// Something is written to a partition of a group's topic.
    pub(super) fn mark(&mut self, group: usize, partition: usize) {
        let last = slot(slot(&mut self.last, group), partition);
        if *last != self.transaction {
            *last = self.transaction;
            self.count += 1;
        }
    }

    /// The least time from the transaction's begin to its commit.
    pub(super) fn pace(&self) -> Duration {
        PACE * self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_counts_once_in_a_transaction() {
        let mut touched = Touched::default();
        for _ in 0..2 {
            touched.begin();
            for (group, partition) in [(0, 0), (0, 0), (0, 2), (7, 0)] {
                touched.mark(group, partition);
            }
            assert_eq!(touched.pace(), PACE * 3);
        }
    }
}
