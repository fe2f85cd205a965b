//! Partitions that the group gives and takes.

use std::time::Instant;

use tracing::{info, warn};

use super::{DRAIN_DEADLINE, Pump, TICK};
use crate::commit::Metadata;
use crate::consume::{Rebalance, SourceError};

/// Partitions that are about to be let go.
pub(super) struct Drain {
    partitions: Vec<i32>,
    /// They are read until then.
    from: Instant,
    deadline: Instant,
}

impl Pump<'_> {
    /// Carries out what the group wants.
    pub(super) fn serve_group(&mut self) -> Result<(), SourceError> {
        if self.state.events_at.elapsed() >= TICK {
            self.state.events_at = Instant::now();
            for rebalance in self.source.events()? {
                self.metrics.rebalanced();
                self.health.joined();
                self.on_rebalance(rebalance)?;
            }
            if let Some(reason) = self.source.take_commit_failure() {
                self.metrics.kafka_error();
                self.state.tracker.forget_committed();
                warn!(reason, "a commit failed; the next one includes its offsets");
            }
        }
        self.finish_drains()
    }

    fn on_rebalance(&mut self, rebalance: Rebalance) -> Result<(), SourceError> {
        info!(?rebalance, "the group has changed");
        // What was committed meanwhile may have been lost, without a word.
        self.state.tracker.forget_committed();
        match rebalance {
            Rebalance::Assign(partitions) => self.take_partitions(&partitions),
            Rebalance::Revoke(partitions) => {
                let from = Instant::now() + self.source.time_to_let_go();
                self.state.draining.push(Drain {
                    partitions,
                    from,
                    deadline: from + DRAIN_DEADLINE,
                });
                Ok(())
            }
            Rebalance::Lost(partitions) => self.let_go(&partitions),
        }
    }

    fn take_partitions(&mut self, partitions: &[i32]) -> Result<(), SourceError> {
        let mut starts = Vec::with_capacity(partitions.len());
        let source = &self.source;
        let committed = self.reactor.while_blocked(|| source.committed(partitions));
        for committed in committed? {
            let partition = committed.partition;
            self.state.tracker.assign(partition);
            let head = self.go_on_from(partition, &committed.metadata);
            starts.push((partition, head.or(committed.offset)));
        }
        self.source.assign(&starts)
    }

    /// Where the shards that were not behind go on, when the committed metadata tells and the shards that
    /// were are still there to catch up. `None`: all of them go on at the committed offset.
    fn go_on_from(&mut self, partition: i32, metadata: &str) -> Option<i64> {
        let Metadata { head, behind } = Metadata::parse(metadata)?;
        let known = |(name, offset): (&String, &i64)| Some((self.shards.index_of(name)?, *offset));
        let behind: Vec<(usize, i64)> = behind.iter().map(known).collect::<Option<_>>()?;
        for (shard, offset) in behind {
            self.shards.isolate(shard);
            self.state
                .tracker
                .fall_behind(partition, self.shards.sink(shard), offset);
        }
        self.state.tracker.start_at(partition, head);
        Some(head)
    }

    /// Lets partitions go that are confirmed, or whose time is over; the others go on undisturbed.
    fn finish_drains(&mut self) -> Result<(), SourceError> {
        for drain in std::mem::take(&mut self.state.draining) {
            if Instant::now() < drain.from {
                self.state.draining.push(drain);
                continue;
            }
            for &partition in &drain.partitions {
                self.state.tracker.drain(partition);
            }
            let confirmed = self.state.tracker.is_confirmed(&drain.partitions);
            if !confirmed && Instant::now() < drain.deadline {
                self.state.draining.push(drain);
                continue;
            }
            if !confirmed {
                warn!(partitions = ?drain.partitions, "handed over before everything was confirmed; the next forwarder sends the rest again");
            }
            // The group may be between two generations, and take nothing just now.
            if !self.commit_finally(&drain.partitions) && Instant::now() < drain.deadline {
                self.state.draining.push(drain);
                continue;
            }
            self.let_go(&drain.partitions)?;
        }
        Ok(())
    }

    fn let_go(&mut self, partitions: &[i32]) -> Result<(), SourceError> {
        // What is left of them in the chunk is not ours, or will come again.
        self.state.chunk.forget(self.state.at, partitions);
        for &partition in partitions {
            self.state.tracker.remove(partition);
            self.metrics.remove_partition(partition);
        }
        self.source.unassign(partitions)
    }
}
