//! When a subscription asks for what it may have missed, and for what. Pure: told the time, and what happens.
//!
//! The order of joining is: subscribe, and have the node know it; ask for everything from the last position that is
//! known to be complete; take in the answer, which reaches up to the topic's end at the moment of the question; then
//! go on live. Live events that come meanwhile wait in the [`Sequencer`].
//!
//! That the node one is connected to knows the subscription does not mean that the others do: for some milliseconds
//! a forwarder's node may not pass events on yet. So the question is asked again, twice, and only then the connection
//! counts as one that delivers. What a connection loses later, the next event of the asset shows; where there is no
//! next event, a question from time to time.

mod marks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::question::{Part, Question, Scope};
use crate::event::Event;
use crate::item::{Extent, Item};
use crate::sequencer::{Heads, Origin, Sequencer};
use marks::{Marks, raise};

/// After a connection was made, when to ask again. Nodes tell each other of subscriptions within milliseconds; a busy
/// one may take a second.
const AGAIN: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(1)];

/// How often a subscription to single assets asks whether anything was missed, though nothing says so: costs a lookup
/// in the service's memory for each asset.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Rest between a question and the next while events wait: what they wait for is about to be written.
const REST: Duration = Duration::from_millis(25);

/// Rest before a question that found nobody is asked again; doubled with every failure.
const RETRY: Duration = Duration::from_millis(100);

/// Longest such rest.
const MAX_RETRY: Duration = Duration::from_secs(2);

/// How long events wait while nothing is heard of the service: longer than it takes to start it again, and than it may be silent
/// itself in the middle of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long they wait for a service that is there but does not get on: it has too much to do, or Kafka does not answer it. What is
/// given up is lost although Kafka has it, so this is longer than an overload lasts that anybody would leave alone.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Asked {
    at: Instant,
    /// Interruptions by then.
    interruptions: u64,
    /// Whether the connection has certainly delivered since before then.
    proven: bool,
    heads: Option<(String, Heads)>,
    /// How far the answer has come on each partition, whose events are in order.
    filled: Heads,
}

/// One subscription's joining.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) sequencer: Sequencer,
    scope: Scope,
    topic: Option<String>,
    /// Everything below was asked for, or seen by somebody else before the subscription began.
    since: Heads,
    marks: Marks,
    due: Option<Instant>,
    /// Further questions after the last connection.
    again: Vec<Instant>,
    asked: Option<Asked>,
    failures: u32,
    waiting_since: Option<Instant>,
    /// When the service was last heard of.
    heard: Option<Instant>,
    /// When what waited was last let go, to be asked for.
    let_go_at: Option<Instant>,
    /// Whether there is anybody to ask.
    enabled: bool,
    check_interval: Duration,
}

impl Join {
    /// A subscription that nobody is asked for until [`Self::begin`] or [`Self::begin_later`].
    pub(crate) fn new(scope: Scope, check_interval: Duration) -> Self {
        Self {
            sequencer: Sequencer::default(),
            scope,
            enabled: false,
            check_interval,
            topic: None,
            since: Heads::new(),
            marks: Marks::default(),
            due: None,
            again: Vec::new(),
            asked: None,
            failures: 0,
            waiting_since: None,
            heard: None,
            let_go_at: None,
        }
    }

    /// The subscription stands and begins at these offsets; where some lie in the past, `resumes` is true, and nothing
    /// below is wanted.
    pub(crate) fn begin(&mut self, topic: &str, since: Heads, resumes: bool, now: Instant) {
        if resumes {
            for (partition, next) in &since {
                self.sequencer.begin_at(topic, *partition, *next);
            }
        }
        self.topic = Some(topic.to_owned());
        self.since = since;
        self.connected(now);
    }

    /// The subscription stands, but nobody has answered yet: nothing waits for that.
    pub(crate) fn begin_later(&mut self, now: Instant) {
        self.enabled = true;
        self.due = Some(now + RETRY);
    }

    /// The connection delivers from here on, perhaps: all that came before is asked for.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.begin_anew(now);
        self.again = AGAIN.iter().rev().map(|after| now + *after).collect();
    }

    /// Only the new shard delivers from here on: what it did not bring from its beginning is asked for, where there is anybody to ask.
    /// Once does, and not before the former shard is left: until then that one delivers, and nodes have known the new subscription for
    /// as long as that took.
    pub(crate) fn end_move(&mut self, asks: bool, now: Instant, out: &mut Vec<Item>) {
        if asks {
            self.begin_anew(now);
        }
        self.sequencer.end_move(out);
    }

    fn begin_anew(&mut self, now: Instant) {
        self.enabled = true;
        self.sequencer.begin_filling();
        self.sequencer.interrupted();
        self.due = Some(now);
    }

    #[cfg(test)]
    pub(super) fn forget_to_ask_again(&mut self) {
        self.again.clear();
    }

    /// Events may have been missed.
    pub(crate) fn interrupted(&mut self, now: Instant) {
        self.sequencer.interrupted();
        if self.enabled {
            self.due = Some(now);
        }
    }

    /// Events were thrown away that had come, and nothing that follows needs to show it.
    pub(crate) fn let_go(&mut self, now: Instant) {
        self.connected(now);
        self.sequencer.let_go();
    }

    /// Takes in an event from a shard, that came at the first of two times and is looked at now.
    pub(crate) fn live(
        &mut self,
        event: Event,
        origin: Origin,
        (arrived, now): (Instant, Instant),
        out: &mut Vec<Item>,
    ) {
        let at = event.cursor.as_ref().map(|it| (it.partition, it.offset));
        let quiet = !self.sequencer.is_waiting();
        self.sequencer.push(event, origin, out);
        if self.sequencer.is_waiting() {
            self.waiting_since.get_or_insert(now);
            if quiet {
                self.due = Some(now);
            }
        } else if let (Scope::Shard(_), Some((partition, offset))) = (&self.scope, at)
            // Before, what has come says nothing about what has not.
            && self.sequencer.is_proven()
        {
            self.marks.note(partition, offset + 1, arrived);
        }
    }

    /// Events wait anew from here on: an answer has brought something, or the consumer takes items again, without which nobody could
    /// have been asked.
    pub(crate) fn wait_anew(&mut self, now: Instant) {
        if let Some(since) = &mut self.waiting_since {
            *since = now;
        }
    }

    /// When something is to be done at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = self.due.filter(|_| self.asked.is_none());
        let ends = [self.patience_ends(), self.lets_go()];
        ends.into_iter().flatten().chain(due).min()
    }

    /// When what waits is let go, since it is in Kafka: it is not to grow with the patience.
    fn lets_go(&self) -> Option<Instant> {
        let since = self.waiting_since.filter(|_| self.failures > 0)?;
        let since = self.let_go_at.map_or(since, |at| at.max(since));
        (self.sequencer.held() > 0).then_some(since + PATIENCE)
    }

    /// When what waits is given up.
    fn patience_ends(&self) -> Option<Instant> {
        let since = self.waiting_since.filter(|_| self.failures > 0)?;
        let long = since + LONG_PATIENCE;
        if self.asked.is_some() {
            // It comes, however slowly, or breaks off: that is not for here to notice.
            return Some(long);
        }
        let heard = self.heard.map_or(since, |heard| heard.max(since));
        Some(long.min(heard + PATIENCE))
    }

    /// Does what is due; the question to ask, if there is one.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Item>) -> Option<Question> {
        if self.patience_ends().is_some_and(|ends| now >= ends) {
            self.waiting_since = None;
            self.sequencer.give_up(out);
        }
        if self.lets_go().is_some_and(|at| now >= at) {
            self.let_go_at = Some(now);
            self.sequencer.let_held_go();
        }
        if self.asked.is_some() || self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        self.again.retain(|at| *at > now);
        self.asked = Some(Asked {
            at: now,
            interruptions: self.sequencer.positions().interruptions(),
            proven: self.again.is_empty(),
            heads: None,
            filled: Heads::new(),
        });
        Some(self.question())
    }

    fn question(&self) -> Question {
        let mut since = self.since.clone();
        let mut from = Heads::new();
        let topic = self.topic.as_deref().unwrap_or_default();
        match &self.scope {
            Scope::Asset(asset) => {
                let seen = self.sequencer.positions().seen(asset, topic);
                let later = |(partition, next): &(u32, u64)| {
                    since.get(partition).is_none_or(|since| next > since)
                };
                from = seen.filter(later).collect();
                for (_, partition, first) in self.sequencer.missing(topic) {
                    from.insert(partition, first);
                }
            }
            Scope::Shard(_) => {
                for (partition, mark) in &self.marks.before {
                    raise(&mut since, *partition, *mark);
                }
                for (_, partition, first) in self.sequencer.missing(topic) {
                    let since = since.entry(partition).or_insert(first);
                    *since = first.min(*since);
                }
            }
        }
        let scope = self.scope.clone();
        Question { scope, since, from }
    }

    /// Takes in a piece of the answer.
    pub(crate) fn part(&mut self, part: Part, now: Instant, out: &mut Vec<Item>) {
        let Some(asked) = &mut self.asked else { return };
        if part.comes_of_the_service() {
            self.heard = Some(now);
        }
        match part {
            Part::Heads { topic, next } => asked.heads = Some((topic, next)),
            Part::Gap(gap) => {
                if let Extent::Possible {
                    partition, last, ..
                } = gap.extent
                {
                    raise(&mut asked.filled, partition, last + 1);
                }
                out.push(Item::Gap(gap));
                self.gets_on(now);
            }
            Part::Reached { partition, next } => {
                let known = asked.filled.get(&partition).max(self.since.get(&partition));
                let is_further = known.is_none_or(|known| *known < next);
                raise(&mut asked.filled, partition, next);
                if is_further {
                    self.gets_on(now);
                }
            }
            Part::Event(event) => {
                if let Some(cursor) = &event.cursor {
                    raise(&mut asked.filled, cursor.partition, cursor.offset + 1);
                }
                if self.sequencer.fill(event, out) {
                    self.gets_on(now);
                }
            }
            Part::End => self.answered(now, out),
            Part::Failed(_) => {
                self.broken_off();
                let rest = RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.due = Some(now + rest.min(MAX_RETRY));
                if self.sequencer.is_waiting() {
                    self.waiting_since.get_or_insert(now);
                }
            }
        }
    }

    /// An answer that brings something new is waited for.
    fn gets_on(&mut self, now: Instant) {
        self.failures = 0;
        self.wait_anew(now);
    }

    /// The next answer goes on where this one has come to, however slowly it is taken.
    fn broken_off(&mut self) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        if let Some((topic, _)) = &asked.heads {
            self.sequencer
                .complete_so_far(topic, &asked.filled, asked.interruptions, false);
        }
        // Without a topic nothing was asked for but where it ends.
        if self.topic.is_some() {
            for (partition, next) in asked.filled {
                raise(&mut self.since, partition, next);
            }
        }
    }

    fn answered(&mut self, now: Instant, out: &mut Vec<Item>) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let Some((topic, heads)) = asked.heads else {
            return;
        };
        self.failures = 0;
        self.sequencer.begin_filling();
        let first = self.topic.replace(topic.clone()).is_none();
        let heads = if first {
            self.sequencer.seen_below(&topic, heads)
        } else {
            heads
        };
        self.sequencer
            .complete((&topic, &heads), asked.interruptions, asked.proven, out);
        // The first answer may be to a question for the ends alone.
        if !first && matches!(self.scope, Scope::Asset(_)) {
            out.push(Item::Complete {
                next: heads.clone(),
            });
        }
        for (partition, next) in heads {
            raise(&mut self.since, partition, next);
        }
        let waits = self.sequencer.is_waiting();
        self.waiting_since = waits.then_some(now);
        self.due = match (self.again.last(), &self.scope) {
            _ if waits || first => Some(now.max(asked.at + REST)),
            (Some(again), _) => Some(*again),
            (None, Scope::Asset(_)) => Some(now + self.check_interval),
            (None, Scope::Shard(_)) => None,
        };
    }
}

/// The beginning of a subscription that resumes: after each cursor, and for all other partitions now.
pub(crate) fn resume(heads: Heads, cursors: &BTreeMap<u32, u64>) -> Heads {
    let mut since = heads;
    for (partition, offset) in cursors {
        since.insert(*partition, offset + 1);
    }
    since
}
