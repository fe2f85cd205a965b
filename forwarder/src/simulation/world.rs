//! The world of a schedule: a topic, a group of forwarders, two shards, and a dice.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::Defect;
use super::forwarder::{Forwarder, shard_of};
use super::nats::{Reply, Shard, Token};
use crate::commit::CommittedPosition;

const PARTITIONS: i32 = 2;
const FORWARDERS: usize = 3;

/// Records of each partition: enough for several windows, few enough for thousands of schedules.
const RECORDS: i64 = 60;

/// Random steps before the faults end, and fair steps until everything must have arrived.
const STEPS: usize = 900;
const SETTLE: usize = 40_000;

/// Steps after which a marker counts as lost: many more than one takes.
const RENEW: usize = 1_000;

pub(super) struct World {
    dice: SmallRng,
    defect: Option<Defect>,
    forwarders: Vec<Forwarder>,
    shards: [Shard; 2],
    /// The group: who has a partition, and what is committed for it.
    owners: BTreeMap<i32, usize>,
    committed: BTreeMap<i32, CommittedPosition>,
    /// A hand-over under way: the partition, and who gets it.
    handover: Option<(i32, usize)>,
    /// Members that do not know yet that a partition is another's.
    zombies: Vec<(usize, i32)>,
    /// Processes started after the first ones.
    processes: u64,
}

impl World {
    pub(super) fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut world = Self {
            dice: SmallRng::seed_from_u64(seed),
            defect,
            forwarders: (0..FORWARDERS)
                .map(|id| Forwarder::new(id, 0, defect))
                .collect(),
            shards: [Shard::new(), Shard::new()],
            owners: BTreeMap::new(),
            committed: BTreeMap::new(),
            handover: None,
            zombies: Vec::new(),
            processes: 0,
        };
        for partition in 0..PARTITIONS {
            world.give(partition, usize::try_from(partition).unwrap_or(0));
        }
        world
    }

    /// Runs the schedule to its end.
    pub(super) fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            match self.dice.random_range(0..100) {
                0..92 => self.work()?,
                _ => self.fault()?,
            }
        }
        self.end_faults()?;
        for step in 0..SETTLE {
            self.work()?;
            if step % RENEW == 0 {
                if self.is_done() {
                    break;
                }
                self.renew_stalled_sessions();
            }
        }
        self.check_end()
    }

    /// Something that happens without anybody's fault.
    fn work(&mut self) -> Result<(), String> {
        let (id, shard) = (
            self.dice.random_range(0..FORWARDERS),
            self.dice.random_range(0..2),
        );
        let (partition, node) = (
            self.dice.random_range(0..PARTITIONS),
            self.dice.random_range(0..2),
        );
        let count = self.dice.random_range(1..6);
        let forwarder = &mut self.forwarders[id];
        match self.dice.random_range(0..10) {
            0 => forwarder.take(partition, count, RECORDS),
            1 | 2 => forwarder.publish(shard, &mut self.shards[shard], node),
            3 => forwarder.hear(shard),
            4 => self.commit(id, partition, false)?,
            5 if !self.shards[shard].away => forwarder.catch_up(shard, count),
            6 => self.finish_handover(false)?,
            _ => self.move_messages(shard, node, count),
        }
        Ok(())
    }

    fn move_messages(&mut self, shard: usize, node: usize, count: i64) {
        for _ in 0..count {
            for reply in [
                self.shards[shard].handle(node),
                self.shards[shard].pass_on(node),
            ]
            .into_iter()
            .flatten()
            {
                let (Reply::Pong(Token { forwarder, .. })
                | Reply::Witnessed(Token { forwarder, .. })) = reply;
                self.forwarders[forwarder].reply(shard, reply);
            }
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        let (id, shard) = (
            self.dice.random_range(0..FORWARDERS),
            self.dice.random_range(0..2),
        );
        let (partition, node) = (
            self.dice.random_range(0..PARTITIONS),
            self.dice.random_range(0..2),
        );
        match self.dice.random_range(0..10) {
            0 => self.shards[shard].kill(node),
            1 => self.shards[shard].part(),
            2 => self.shards[shard].join(),
            3 => self.forwarders[id].end_session(shard),
            4 => self.crash(id),
            5 => self.begin_handover(partition, id),
            6 => self.finish_handover(true)?,
            7 => self.fence(partition, id),
            8 => self.notice_fencing(),
            _ => self.shard_goes_or_returns(shard),
        }
        Ok(())
    }

    fn shard_goes_or_returns(&mut self, shard: usize) {
        self.shards[shard].away = !self.shards[shard].away;
    }

    fn give(&mut self, partition: i32, id: usize) {
        self.owners.insert(partition, id);
        self.forwarders[id].assign(partition, self.committed.get(&partition));
    }

    /// The member goes on as a new process; whatever it had is gone, its partitions stay with it.
    fn crash(&mut self, id: usize) {
        self.processes += 1;
        self.forwarders[id] = Forwarder::new(id, self.processes << 32, self.defect);
        self.zombies.retain(|(zombie, _)| *zombie != id);
        if self
            .handover
            .is_some_and(|(partition, _)| self.owners.get(&partition) == Some(&id))
        {
            self.handover = None;
        }
        let owned: Vec<i32> = self
            .owners
            .iter()
            .filter(|(_, owner)| **owner == id)
            .map(|(id, _)| *id)
            .collect();
        owned
            .into_iter()
            .for_each(|partition| self.give(partition, id));
    }

    fn begin_handover(&mut self, partition: i32, to: usize) {
        let from = self.owners[&partition];
        if self.handover.is_none() && from != to {
            self.forwarders[from].tracker.drain(partition);
            self.handover = Some((partition, to));
        }
    }

    /// The old owner commits and lets go, when all is confirmed or its time is over.
    fn finish_handover(&mut self, overdue: bool) -> Result<(), String> {
        let Some((partition, to)) = self.handover else {
            return Ok(());
        };
        let from = self.owners[&partition];
        if overdue || self.forwarders[from].tracker.is_confirmed(&[partition]) {
            self.commit(from, partition, true)?;
            self.forwarders[from].let_go(partition);
            self.handover = None;
            self.give(partition, to);
        }
        Ok(())
    }

    /// The group gives a partition to another while its owner is frozen and knows nothing.
    fn fence(&mut self, partition: i32, to: usize) {
        let from = self.owners[&partition];
        if from != to && self.handover.is_none() {
            self.zombies.push((from, partition));
            self.give(partition, to);
            // A member that gets back what it had as a zombie has noticed.
            self.zombies.retain(|zombie| *zombie != (to, partition));
        }
    }

    fn notice_fencing(&mut self) {
        for (id, partition) in std::mem::take(&mut self.zombies) {
            if self.owners[&partition] != id {
                self.forwarders[id].let_go(partition);
            }
        }
    }

    /// A commit is taken from a partition's owner only, and must not claim what a second node has not had.
    fn commit(&mut self, id: usize, partition: i32, revoked: bool) -> Result<(), String> {
        if self.owners.get(&partition) != Some(&id) {
            return Ok(());
        }
        let Some(position) = self.forwarders[id].position(partition, revoked) else {
            return Ok(());
        };
        let claimed = |shard: usize| {
            let behind = position
                .behind
                .iter()
                .find(|(sink, _)| sink.0 as usize == shard);
            behind.map_or(
                if position.behind.is_empty() {
                    position.offset
                } else {
                    position.head
                },
                |(_, at)| *at,
            )
        };
        for offset in 0..RECORDS {
            let shard = shard_of(offset);
            if offset < claimed(shard) && !self.shards[shard].has((partition, offset)) {
                return Err(format!(
                    "{partition}/{offset} is committed, but no second node of shard {shard} has had it"
                ));
            }
        }
        self.forwarders[id]
            .tracker
            .note_committed(vec![(partition, position.clone())]);
        self.committed.insert(partition, position);
        Ok(())
    }

    fn end_faults(&mut self) -> Result<(), String> {
        self.finish_handover(true)?;
        self.notice_fencing();
        for shard in &mut self.shards {
            shard.away = false;
        }
        for _ in 0..STEPS {
            for shard in 0..2 {
                self.move_messages(shard, 0, 1);
                self.move_messages(shard, 1, 1);
            }
        }
        self.shards.iter_mut().for_each(Shard::join);
        self.renew_stalled_sessions();
        Ok(())
    }

    /// Markers that stay away end a session.
    fn renew_stalled_sessions(&mut self) {
        for shard in 0..2 {
            self.forwarders
                .iter_mut()
                .for_each(|forwarder| forwarder.end_if_stalled(shard));
        }
    }

    fn is_done(&self) -> bool {
        let done = |(&partition, &owner): (&i32, &usize)| {
            self.forwarders[owner].is_done(partition, RECORDS)
        };
        self.owners.iter().all(done)
    }

    fn check_end(&self) -> Result<(), String> {
        for (&partition, &owner) in &self.owners {
            if !self.forwarders[owner].is_done(partition, RECORDS) {
                return Err(format!(
                    "partition {partition} has not been worked off in the end: {:?}",
                    self.forwarders[owner]
                ));
            }
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let offsets = (0..RECORDS).filter(|&offset| shard_of(offset) == index);
            let events = (0..PARTITIONS)
                .flat_map(|partition| offsets.clone().map(move |offset| (partition, offset)));
            if let Some((partition, offset)) = events.clone().find(|&event| !shard.has(event)) {
                return Err(format!(
                    "{partition}/{offset} never reached both nodes of shard {index}"
                ));
            }
            if let Some((partition, offset)) = shard.unseen(&events) {
                return Err(format!(
                    "{partition}/{offset} came out of order at a client of shard {index}, which dropped it"
                ));
            }
        }
        Ok(())
    }
}
