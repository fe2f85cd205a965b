//! Which partitions are read, how far, and which broker leads each. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

/// What is read, and where it is to be had.
#[derive(Debug, Default)]
pub(super) struct Table {
    partitions: BTreeMap<i32, Reading>,
    cluster: Cluster,
    generations: u64,
    turns: usize,
}

/// The brokers, and which of them leads which partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    /// `host:port` of each broker.
    pub(super) brokers: BTreeMap<i32, String>,
    pub(super) leaders: BTreeMap<i32, Leader>,
}

/// The leader of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) broker: i32,
    /// Which of its leaders in succession; -1 when not known.
    pub(super) epoch: i32,
}

#[derive(Debug)]
struct Reading {
    generation: Generation,
    /// Offset of the next record to ask for; `None` for the oldest there is.
    next: Option<i64>,
    /// Epoch of the leader that wrote the last one read; -1 for none.
    last_epoch: i32,
    /// Offset behind the last record that may be read.
    end: Option<i64>,
    /// Not to be asked for before.
    due: Option<Instant>,
}

/// Tells one reading of a partition from another: what was on its way when it ended counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// What to ask a broker for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) partition: i32,
    pub(super) generation: Generation,
    pub(super) next: Option<i64>,
    pub(super) leader_epoch: i32,
    pub(super) last_epoch: i32,
}

impl Table {
    /// Reads a partition from `next` on, or from the oldest record there is; whatever was read of it before
    /// counts no more.
    pub(super) fn read(&mut self, partition: i32, next: Option<i64>, due: Option<Instant>) {
        self.generations += 1;
        let reading = Reading {
            generation: Generation(self.generations),
            next,
            last_epoch: -1,
            end: self.end(partition),
            due,
        };
        self.partitions.insert(partition, reading);
    }

    /// Reads a partition no more.
    pub(super) fn remove(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Whether what was read under a generation counts.
    pub(super) fn is_current(&self, partition: i32, generation: Generation) -> bool {
        let reading = self.partitions.get(&partition);
        reading.is_some_and(|reading| reading.generation == generation)
    }

    /// Offset behind the last record that may be read, as a broker has told.
    pub(super) fn end(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.end
    }

    pub(super) fn set_cluster(&mut self, cluster: Cluster) {
        self.cluster = cluster;
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether the leader of a partition that is read is not known.
    pub(super) fn lacks_leader(&self) -> bool {
        let leaders = &self.cluster.leaders;
        self.partitions.keys().any(|id| !leaders.contains_key(id))
    }

    /// What to ask a broker for now. Each time another partition is first: a broker fills its answer in order,
    /// and the first must not starve the others.
    pub(super) fn wanted(&mut self, broker: i32, now: Instant) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = self
            .partitions
            .iter()
            .filter(|(_, reading)| reading.due.is_none_or(|due| due <= now))
            .filter_map(|(&partition, reading)| {
                let leader = self.cluster.leaders.get(&partition)?;
                (leader.broker == broker).then_some(Wanted {
                    partition,
                    generation: reading.generation,
                    next: reading.next,
                    leader_epoch: leader.epoch,
                    last_epoch: reading.last_epoch,
                })
            })
            .collect();
        if !wanted.is_empty() {
            self.turns = self.turns.wrapping_add(1);
            let first = self.turns % wanted.len();
            wanted.rotate_left(first);
        }
        wanted
    }

    /// Asks for a partition again only when it is due.
    pub(super) fn postpone(&mut self, wanted: &Wanted, due: Instant) {
        if let Some(reading) = self.partitions.get_mut(&wanted.partition)
            && reading.generation == wanted.generation
        {
            reading.due = Some(due);
        }
    }

    /// A broker has answered: everything below `next` is here. False when nobody waits for it any more.
    pub(super) fn advance(
        &mut self,
        wanted: &Wanted,
        next: Option<(i64, i32)>,
        end: Option<i64>,
    ) -> bool {
        let Some(reading) = self
            .partitions
            .get_mut(&wanted.partition)
            .filter(|reading| reading.generation == wanted.generation)
        else {
            return false;
        };
        if let Some((next, epoch)) = next {
            reading.next = Some(next);
            reading.last_epoch = epoch;
        }
        reading.end = end.or(reading.end);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        let leader = |broker| Leader { broker, epoch: 4 };
        table.set_cluster(Cluster {
            brokers: BTreeMap::from([(1, "a:1".to_owned()), (2, "b:1".to_owned())]),
            leaders: BTreeMap::from([(0, leader(1)), (1, leader(2)), (2, leader(1))]),
        });
        for partition in 0..3 {
            table.read(partition, Some(10), None);
        }
        table
    }

    fn asked(table: &mut Table, broker: i32) -> Vec<(i32, Option<i64>)> {
        let mut wanted = table.wanted(broker, Instant::now());
        wanted.sort_by_key(|wanted| wanted.partition);
        wanted.iter().map(|it| (it.partition, it.next)).collect()
    }

    #[test]
    fn each_broker_is_asked_for_what_it_leads() {
        let mut table = table();
        assert_eq!(asked(&mut table, 1), [(0, Some(10)), (2, Some(10))]);
        assert_eq!(asked(&mut table, 2), [(1, Some(10))]);
        assert!(!table.lacks_leader());
        table.read(7, None, None);
        assert!(table.lacks_leader());
    }

    #[test]
    fn no_partition_is_always_the_last() {
        let mut table = table();
        let first = |table: &mut Table| table.wanted(1, Instant::now())[0].partition;
        let (one, other) = (first(&mut table), first(&mut table));
        assert_ne!(one, other);
    }

    #[test]
    fn an_answer_to_an_earlier_question_changes_nothing() {
        let mut table = table();
        let old = table.wanted(2, Instant::now())[0];
        table.read(1, Some(5), None);
        assert!(!table.advance(&old, Some((90, 4)), Some(100)));
        assert!(!table.is_current(1, old.generation));
        assert_eq!(asked(&mut table, 2), [(1, Some(5))]);
        let new = table.wanted(2, Instant::now())[0];
        assert!(table.advance(&new, Some((6, 4)), Some(100)));
        assert_eq!(asked(&mut table, 2), [(1, Some(6))]);
        assert_eq!(table.end(1), Some(100));
        table.remove(1);
        assert!(!table.advance(&new, Some((7, 4)), None));
    }

    #[test]
    fn what_is_not_due_is_not_asked_for() {
        let mut table = table();
        let now = Instant::now();
        table.read(1, Some(5), Some(now + std::time::Duration::from_secs(1)));
        assert!(table.wanted(2, now).is_empty());
        assert_eq!(
            table
                .wanted(2, now + std::time::Duration::from_secs(2))
                .len(),
            1
        );
    }
}
