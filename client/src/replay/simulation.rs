//! [`Join`] against models of what surrounds it, in schedules drawn from a seed: a topic, forwarders that do not always
//! know an asset's event before, a node that dies with what is on its way, other nodes that learn of a subscription
//! late, a consumer for which events are let go, and a replay service that answers slowly, in pieces, or not at all.
//!
//! A schedule fails when an event is missing, comes twice or out of order, or when a gap is announced that could have
//! been filled. To show that it would notice, [`Defect`]s are put in on purpose: each has to be caught.
//!
//! `OFA_SIM_SCHEDULES` sets the number of schedules, `OFA_SIM_SEED` repeats one.

mod judge;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use super::join::Join;
use super::question::{Part, Question, Scope};
use super::service::ReplayError;
use crate::event::Event;
use crate::item::Item;
use crate::sequencer::{Heads, Origin};

/// Schedules in a normal test run; `OFA_SIM_SCHEDULES` sets more.
const SCHEDULES: u64 = 1_000;

/// Schedules within which each defect has to be caught.
const SCHEDULES_PER_DEFECT: u64 = 600;

/// Random steps before the faults end, and fair ones until everything must have arrived.
const STEPS: usize = 800;
const SETTLE: usize = 12_000;

/// After how many events an answer says how far it has come.
const REACHED_EVERY: usize = 3;

/// What a step takes.
const STEP: Duration = Duration::from_millis(4);

const ASSETS: [(&str, u32); 3] = [("A", 0), ("B", 0), ("C", 1)];

/// A mistake that somebody could make, put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// A new connection goes unnoticed.
    MissReconnect,
    /// Asks once after a connection was made, before the other nodes know of the subscription.
    AskOnce,
    /// Live events that come during an answer are thrown away.
    DropWhileAsking,
    /// Live events do not wait for the answer.
    LiveFirst,
    /// What was asked for is passed on beside what came live.
    NoDeduplication,
    /// Asks from the topic's end on.
    AskFromNow,
    /// An answer that broke off counts as complete.
    BrokenIsComplete,
    /// The service says more than what it has read.
    HeadBeyondAnswer,
    /// The service sends the newest first.
    NewestFirst,
    /// Events are let go, and that is forgotten.
    ForgetWhatWasLetGo,
    /// The service says that it has sent what it has not.
    ReachedBeyondAnswer,
}

impl Defect {
    const ALL: [Self; 11] = [
        Self::MissReconnect,
        Self::AskOnce,
        Self::DropWhileAsking,
        Self::LiveFirst,
        Self::NoDeduplication,
        Self::AskFromNow,
        Self::BrokenIsComplete,
        Self::HeadBeyondAnswer,
        Self::NewestFirst,
        Self::ForgetWhatWasLetGo,
        Self::ReachedBeyondAnswer,
    ];
}

struct World {
    dice: SmallRng,
    defect: Option<Defect>,
    now: Instant,
    join: Join,
    scope: Scope,
    log: Vec<Event>,
    ends: Heads,
    /// Whether forwarders always know an asset's event before. If not, what is lost on a connection that stands cannot
    /// be noticed, and is not part of the schedule.
    knows_prev: bool,
    connected: bool,
    /// Whether the forwarder's node knows the subscription.
    known: bool,
    wire: VecDeque<Event>,
    /// What comes is let go.
    lets_go: bool,
    /// Connections of which the subscription has not heard.
    news: usize,
    answer: Option<VecDeque<Part>>,
    out: Vec<Item>,
}

impl World {
    fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed);
        let scope = if dice.random() {
            Scope::Asset("A".to_owned())
        } else {
            Scope::Shard("C1".to_owned())
        };
        let knows_prev = dice.random();
        let now = Instant::now();
        let mut world = Self {
            dice,
            defect,
            now,
            join: Join::new(scope.clone(), Duration::from_secs(15)),
            scope,
            log: Vec::new(),
            ends: [(0, 0), (1, 0)].into(),
            knows_prev,
            connected: true,
            known: true,
            wire: VecDeque::new(),
            lets_go: false,
            news: 0,
            answer: None,
            out: Vec::new(),
        };
        for _ in 0..world.dice.random_range(0..20) {
            world.append(false);
        }
        world.log.clear();
        let heads = world.ends.clone();
        world.join.begin("t", heads, false, now);
        world
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            match self.dice.random_range(0..100) {
                0..30 => self.append(true),
                30..97 => self.work(true),
                _ => self.fault(),
            }
            self.turn();
        }
        self.connect();
        self.let_go_no_more();
        for step in 0..SETTLE {
            self.work(false);
            self.turn();
            // Most of the time nothing happens.
            if step > SETTLE / 4 {
                self.now += STEP * 4;
            }
        }
        self.check()
    }

    fn append(&mut self, publish: bool) {
        let (asset, partition) = ASSETS[self.dice.random_range(0..ASSETS.len())];
        let end = self.ends.entry(partition).or_default();
        let offset = *end;
        *end += 1;
        let mut events = self.log.iter().rev();
        let prev = events
            .find(|event| event.asset == asset)
            .and_then(|event| Some(event.cursor.as_ref()?.offset));
        let event = Event {
            prev: prev.filter(|_| self.knows_prev || self.dice.random()),
            ..Event::of(asset, partition, offset)
        };
        self.log.push(event.clone());
        let mine = match &self.scope {
            Scope::Asset(mine) => mine == asset,
            Scope::Shard(_) => true,
        };
        // Rarely, a node dies that was between the forwarder's and the subscriber's.
        let passed_on = !(self.knows_prev
            && matches!(self.scope, Scope::Asset(_))
            && self.dice.random_ratio(1, 40));
        let arrives = self.connected && self.known && passed_on && !self.lets_go;
        if publish && mine && arrives {
            self.wire.push_back(event);
        }
    }

    /// Something that happens without anybody's fault.
    fn work(&mut self, may_fail: bool) {
        match self.dice.random_range(0..10) {
            0 => self.known |= self.connected,
            1..6 => self.hear(),
            _ => self.answer(may_fail),
        }
    }

    fn fault(&mut self) {
        if self.lets_go {
            self.let_go_no_more();
        } else if self.dice.random_ratio(1, 4) {
            self.hear_all();
            self.lets_go = true;
        } else if self.connected {
            self.connected = false;
            self.known = false;
            let kept = self.dice.random_range(0..=self.wire.len());
            self.wire.truncate(kept);
        } else {
            self.connect();
        }
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            // The client reads what it has of the former connection first.
            self.hear_all();
            self.news += 1;
        }
    }

    fn let_go_no_more(&mut self) {
        if std::mem::take(&mut self.lets_go) && self.defect != Some(Defect::ForgetWhatWasLetGo) {
            self.join.let_go(self.now);
        }
    }

    fn hear_all(&mut self) {
        while !self.wire.is_empty() {
            self.hear();
        }
    }

    fn hear_of_connection(&mut self) {
        if std::mem::take(&mut self.news) > 0 && self.defect != Some(Defect::MissReconnect) {
            self.join.connected(self.now);
            if self.defect == Some(Defect::AskOnce) {
                self.join.forget_to_ask_again();
            }
        }
    }

    fn hear(&mut self) {
        self.hear_of_connection();
        let Some(event) = self.wire.pop_front() else {
            return;
        };
        match self.defect {
            Some(Defect::DropWhileAsking) if self.answer.is_some() => {}
            Some(Defect::LiveFirst) if self.answer.is_some() => self.out.push(Item::Event(event)),
            _ => self
                .join
                .live(event, Origin::Current, (self.now, self.now), &mut self.out),
        }
    }

    /// Time goes on, and what is due is done.
    fn turn(&mut self) {
        self.now += STEP;
        self.hear_of_connection();
        if let Some(mut question) = self.join.tick(self.now, &mut self.out) {
            if self.defect == Some(Defect::AskFromNow) {
                question.since.clone_from(&self.ends);
                question.from.clear();
            }
            self.answer = Some(self.replay(&question));
        }
    }

    /// The answer as it is decided when the service gets the question.
    fn replay(&mut self, question: &Question) -> VecDeque<Part> {
        let mut ends = self.ends.clone();
        let mut events: Vec<Event> = self
            .log
            .iter()
            .filter(|event| is_asked(question, event))
            .cloned()
            .collect();
        events.sort_by_key(|event| event.cursor.as_ref().map(|it| (it.partition, it.offset)));
        for event in &mut events {
            event.prev = None;
        }
        match self.defect {
            Some(Defect::NewestFirst) => events.reverse(),
            Some(Defect::HeadBeyondAnswer) => {
                events.pop();
            }
            _ => {}
        }
        if question.since.is_empty() {
            ends = self.ends.clone();
        }
        let heads = Part::Heads {
            topic: "t".to_owned(),
            next: ends,
        };
        let mut parts = VecDeque::from([heads]);
        for (partition, end) in &self.ends {
            let here =
                |event: &&Event| event.cursor.as_ref().map(|it| it.partition) == Some(*partition);
            for (number, event) in events.iter().filter(here).enumerate() {
                let next = event.cursor.as_ref().map_or(0, |it| it.offset + 1);
                let reached = Part::Reached {
                    partition: *partition,
                    next,
                };
                let told = number % REACHED_EVERY == 0;
                if told && self.defect == Some(Defect::ReachedBeyondAnswer) {
                    parts.extend([reached, Part::Event(event.clone())]);
                } else {
                    parts.push_back(Part::Event(event.clone()));
                    parts.extend(told.then_some(reached));
                }
            }
            if !question.since.is_empty() || question.from.contains_key(partition) {
                parts.push_back(Part::Reached {
                    partition: *partition,
                    next: *end,
                });
            }
        }
        parts.push_back(Part::End);
        parts
    }

    fn answer(&mut self, may_fail: bool) {
        let Some(parts) = &mut self.answer else {
            return;
        };
        let breaks = may_fail && self.dice.random_ratio(1, 60);
        let part = match parts.pop_front() {
            Some(_) if breaks && self.defect == Some(Defect::BrokenIsComplete) => Part::End,
            Some(_) if breaks => Part::Failed(Arc::new(ReplayError::Silent)),
            Some(part) => part,
            None => return,
        };
        if matches!(part, Part::End | Part::Failed(_)) {
            self.answer = None;
        }
        match part {
            Part::Event(event) if self.defect == Some(Defect::NoDeduplication) => {
                self.out.push(Item::Event(event));
            }
            part => self.join.part(part, self.now, &mut self.out),
        }
    }
}

fn is_asked(question: &Question, event: &Event) -> bool {
    let Some(cursor) = &event.cursor else {
        return false;
    };
    let of_scope = match &question.scope {
        Scope::Asset(asset) => *asset == event.asset,
        Scope::Shard(_) => true,
    };
    let from = question.from.get(&cursor.partition);
    let from = from.or_else(|| question.since.get(&cursor.partition));
    of_scope && from.is_some_and(|from| cursor.offset >= *from)
}

fn run(seed: u64, defect: Option<Defect>) -> Result<(), String> {
    World::new(seed, defect).run()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_schedule_loses_reorders_or_repeats() {
    let seeds = match number("OFA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OFA_SIM_SCHEDULES").unwrap_or(SCHEDULES),
    };
    for seed in seeds {
        if let Err(problem) = run(seed, None) {
            panic!("{problem}\nrepeat with OFA_SIM_SEED={seed}");
        }
    }
}

#[test]
fn every_defect_put_in_on_purpose_is_caught() {
    let missed: Vec<Defect> = Defect::ALL
        .into_iter()
        .filter(|&defect| (0..SCHEDULES_PER_DEFECT).all(|seed| run(seed, Some(defect)).is_ok()))
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
