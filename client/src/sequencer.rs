//! One ordered stream for each asset, also while it moves from one shard to another, and while what was missed is
//! asked for again.
//!
//! An event that comes out of turn is held. During a move it waits for what the former shard still has. Where a
//! replay service fills gaps, it waits for what the service has before it. When nothing more is expected, what is
//! held goes out, with what is missing named.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::item::{Cause, Gap, Item};
use crate::positions::{Positions, Verdict};
use crate::source::Anew;

/// Most events held back, about a second of a busy shard, and most bytes of them. During a move more end the wait; while
/// what was missed is asked for, they are let go and asked for too.
const MAX_HELD: usize = 50_000;
const MAX_HELD_BYTES: usize = 64 << 20;

/// Which shard an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The shard that has the asset by the newest shard map.
    Current,
    /// The shard it moves away from.
    Former,
}

/// An asset on a partition of a topic.
type Lane = (String, String, u32);

/// How far a partition is complete: the offset after the last of which everything before is known.
pub type Heads = BTreeMap<u32, u64>;

/// An event that waits.
#[derive(Debug)]
struct Held {
    event: Event,
    /// What [`Sequencer::proof`] said when it arrived.
    proof: u64,
}

/// Puts events in order, drops what was seen and names what is missing.
#[derive(Debug, Default)]
pub struct Sequencer {
    positions: Positions,
    held: BTreeMap<Lane, BTreeMap<u64, Held>>,
    count: usize,
    bytes: usize,
    /// Events of [`Origin::Former`] are expected.
    moving: bool,
    /// [`Origin::Current`] has brought an event before which nothing is missing, since the move.
    arrived: bool,
    /// Somebody asks for what is missing.
    filling: bool,
    /// After an interruption: nothing is known to be complete until it was asked for.
    joining: bool,
    /// Since the last interruption an answer has come to a question of when the connection certainly delivered.
    proven: bool,
    /// Events were let go, after so many interruptions, and have to be asked for.
    spilled: Option<u64>,
}

impl Sequencer {
    /// From now on what is missing is asked for, and events wait for it.
    pub fn begin_filling(&mut self) {
        self.filling = true;
    }

    /// What was seen of each asset.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The subscription begins here on a partition; see [`Positions::begin`].
    pub fn begin_at(&mut self, topic: &str, partition: u32, next: u64) {
        self.positions.begin(topic, partition, next);
    }

    /// Notes that events may have been missed.
    pub fn interrupted(&mut self) {
        self.positions.interrupted();
        self.joining = self.filling;
        self.proven = false;
    }

    /// Notes that events were let go by the last interruption, and have to be asked for: an answer to a question of before does not
    /// do.
    pub fn let_go(&mut self) {
        self.spilled = Some(self.positions.interruptions());
    }

    /// Lets what waits go; it has to be asked for.
    pub fn let_held_go(&mut self) {
        self.held.clear();
        (self.count, self.bytes) = (0, 0);
        self.interrupted();
        self.let_go();
    }

    /// How many events wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.count
    }

    /// These ends of a topic's partitions, or where something was seen and more may be missing behind it, the offset behind that.
    #[must_use]
    pub fn seen_below(&self, topic: &str, mut heads: Heads) -> Heads {
        for (partition, next) in self.positions.seen_of_any(topic) {
            if let Some(head) = heads.get_mut(&partition) {
                *head = next.min(*head);
            }
        }
        heads
    }

    /// Whether something is to be asked for: events wait, or nothing is known since the last interruption.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.filling && (self.joining || self.spilled.is_some() || !self.held.is_empty())
    }

    /// Whether the connection certainly delivers since the last interruption, by an answer.
    #[must_use]
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// The first offset of which nothing is known, of each asset and partition of `topic` whose events wait.
    pub fn missing<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (&'a str, u32, u64)> + 'a {
        let lanes = self.held.iter().filter(move |((_, it, _), _)| it == topic);
        lanes.filter_map(|((asset, _, partition), events)| {
            let cursor = events.values().next()?.event.cursor.as_ref()?;
            let first = self.positions.first_unknown(asset, cursor)?;
            Some((asset.as_str(), *partition, first))
        })
    }

    /// From now on events of [`Origin::Current`] wait for what [`Origin::Former`] still has; and where what is missing is asked for,
    /// the former shard's wait for that too.
    pub fn begin_move(&mut self) {
        self.moving = true;
        self.arrived = false;
    }

    /// Whether a connection is the one that a move waits for: the new shard's first.
    #[must_use]
    pub(crate) fn begins_to_move(&self, anew: Anew, origin: Origin) -> bool {
        self.moving && (anew, origin) == (Anew::First, Origin::Current)
    }

    /// Whether the shard moved to certainly delivers, and nothing waits for the former one: it has brought an event before which
    /// nothing is missing and that is as new as any.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        self.arrived && self.count == 0
    }

    /// Nothing is expected of the former shard any more: unless it is asked for elsewhere, what is held goes out,
    /// gaps named.
    pub fn end_move(&mut self, out: &mut Vec<Item>) {
        if !std::mem::take(&mut self.moving) {
            return;
        }
        self.positions.moved();
        self.proven = false;
        if !self.filling {
            self.pass_held(out);
        }
    }

    /// Nobody can be asked any more: what is held goes out, gaps named.
    pub fn give_up(&mut self, out: &mut Vec<Item>) {
        self.filling = false;
        self.joining = false;
        if self.spilled.take().is_some() {
            self.positions.interrupted();
            out.push(Item::Gap(Gap::unknown(Cause::Delivery)));
        }
        if !self.moving {
            self.pass_held(out);
        }
    }

    fn pass_held(&mut self, out: &mut Vec<Item>) {
        (self.count, self.bytes) = (0, 0);
        for held in std::mem::take(&mut self.held)
            .into_values()
            .flat_map(BTreeMap::into_values)
        {
            self.pass(held.event, held.proof, out);
        }
    }

    /// Takes in an event and appends what is due now.
    pub fn push(&mut self, event: Event, origin: Origin, out: &mut Vec<Item>) {
        if self.must_wait(&event, origin) {
            self.hold(event, out);
            return;
        }
        // Where the event before is not known, the next one may show a gap that the former shard would fill.
        self.arrived |= self.moving
            && origin == Origin::Current
            && event.prev.is_some()
            && self.is_newest(&event);
        // Most of the time nothing waits.
        let lane = if self.held.is_empty() {
            None
        } else {
            lane_of(&event)
        };
        self.pass(event, self.proof(), out);
        if let Some(lane) = lane {
            self.release(&lane, out);
        }
    }

    /// Takes in an event that was asked for, together with all of the asset before it. Whether it is a new one.
    pub fn fill(&mut self, event: Event, out: &mut Vec<Item>) -> bool {
        let Some(lane) = lane_of(&event) else {
            return false;
        };
        let is_new = self.pass_as_next(event, out);
        self.release(&lane, out);
        is_new
    }

    /// Everything below `heads` has been taken in from an answer, that goes on or broke off there; the rest as in [`Self::complete`].
    pub fn complete_so_far(&mut self, topic: &str, heads: &Heads, asked_at: u64, proven: bool) {
        let as_of = proves(asked_at, proven);
        for (partition, next) in heads {
            self.positions.complete(topic, *partition, *next, as_of);
        }
    }

    /// Everything below `heads` has been asked for and taken in. `asked_at` is what [`Positions::interruptions`] said
    /// when the question was asked; `proven` is whether the connection has certainly delivered since before then.
    pub fn complete(
        &mut self,
        (topic, heads): (&str, &Heads),
        asked_at: u64,
        proven: bool,
        out: &mut Vec<Item>,
    ) {
        for lane in self.lanes_of(topic) {
            let head = heads.get(&lane.2).copied().unwrap_or(0);
            while let Some(Held { event, .. }) = self.take_held(&lane, |event| offset(event) < head)
            {
                // It may have come over a connection that is lost by now, so it proves nothing about this one.
                self.pass_as_next(event, out);
            }
        }
        self.complete_so_far(topic, heads, asked_at, proven);
        self.proven |= proven && asked_at == self.positions.interruptions();
        // What was let go since is to be asked for first, and so is what came before another interruption was noticed.
        self.spilled = self.spilled.filter(|at| asked_at < *at);
        self.joining =
            self.spilled.is_some() || (self.joining && asked_at < self.positions.interruptions());
        for lane in self.lanes_of(topic) {
            self.release(&lane, out);
        }
    }

    /// After how many interruptions an event that comes now proves that those after it come too. Where it may be one that a forwarder
    /// repeats, what followed it may have been sent before nodes knew of the subscription.
    fn proof(&self) -> u64 {
        proves(self.positions.interruptions(), self.proven || !self.filling)
    }

    fn lanes_of(&self, topic: &str) -> Vec<Lane> {
        let lanes = self.held.keys().filter(|(_, it, _)| it == topic);
        lanes.cloned().collect()
    }

    fn must_wait(&self, event: &Event, origin: Origin) -> bool {
        if self.is_settled(event) {
            return false;
        }
        // In a move the asset comes over two connections, and what one has brought says nothing about the other: the asset may have
        // been on the new shard only, and be back on the former one. Where nobody can be asked, that is believed.
        let moves = self.moving && (self.filling || origin == Origin::Current);
        let others_wait = || lane_of(event).is_some_and(|lane| self.held.contains_key(&lane));
        moves || (self.filling && (self.joining || others_wait() || self.is_after_gap(event)))
    }

    fn is_settled(&self, event: &Event) -> bool {
        event
            .cursor
            .as_ref()
            .is_none_or(|cursor| self.positions.is_settled(&event.asset, cursor, event.prev))
    }

    /// Whether nothing newer of its asset was seen.
    fn is_newest(&self, event: &Event) -> bool {
        event.cursor.as_ref().is_some_and(|cursor| {
            let first = self.positions.first_unknown(&event.asset, cursor);
            first.is_none_or(|first| cursor.offset + 1 >= first)
        })
    }

    fn is_after_gap(&self, event: &Event) -> bool {
        event.cursor.as_ref().is_some_and(|cursor| {
            let verdict = self.positions.judge(&event.asset, cursor, event.prev);
            matches!(
                verdict,
                Verdict::AfterGap { .. } | Verdict::AfterPossibleGap { .. }
            )
        })
    }

    fn hold(&mut self, event: Event, out: &mut Vec<Item>) {
        let Some(lane) = lane_of(&event) else {
            out.push(Item::Event(event));
            return;
        };
        let offset = offset(&event);
        let proof = self.proof();
        let events = self.held.entry(lane).or_default();
        self.bytes += event.size();
        self.count += 1;
        if let Some(before) = events.insert(offset, Held { event, proof }) {
            self.bytes -= before.event.size();
            self.count -= 1;
        }
        if self.count <= MAX_HELD && self.bytes <= MAX_HELD_BYTES {
            return;
        }
        if self.filling {
            self.let_held_go();
        } else {
            self.end_move(out);
            self.begin_move();
        }
    }

    /// Sends on what has become the next.
    fn release(&mut self, lane: &Lane, out: &mut Vec<Item>) {
        let (moving, joining) = (self.moving, self.joining);
        loop {
            let first = self.held.get(lane).and_then(|it| it.values().next());
            let Some(Held { event, .. }) = first else {
                return;
            };
            let is_due = self.is_settled(event)
                || (self.filling && !moving && !joining && !self.is_after_gap(event));
            if !is_due {
                return;
            }
            if let Some(held) = self.take_held(lane, |_| true) {
                self.pass(held.event, held.proof, out);
            }
        }
    }

    fn take_held(&mut self, lane: &Lane, wanted: impl Fn(&Event) -> bool) -> Option<Held> {
        let events = self.held.get_mut(lane)?;
        let first = events.first_entry();
        let held = first.filter(|it| wanted(&it.get().event))?.remove();
        if events.is_empty() {
            self.held.remove(lane);
        }
        self.count -= 1;
        self.bytes -= held.event.size();
        Some(held)
    }

    /// Passes an event on before which nothing is missing. Whether it is a new one.
    fn pass_as_next(&mut self, event: Event, out: &mut Vec<Item>) -> bool {
        let Some(cursor) = &event.cursor else {
            return false;
        };
        let is_new = self.positions.fill(&event.asset, cursor);
        out.push(if is_new {
            Item::Event(event)
        } else {
            Item::Stale(event)
        });
        is_new
    }

    fn pass(&mut self, event: Event, proof: u64, out: &mut Vec<Item>) {
        let Some(cursor) = &event.cursor else {
            out.push(Item::Event(event));
            return;
        };
        let verdict = self
            .positions
            .accept_late(&event.asset, cursor, event.prev, proof);
        if verdict == Verdict::Stale {
            out.push(Item::Stale(event));
            return;
        }
        if let Some(extent) = verdict.missing(cursor) {
            out.push(Item::Gap(Gap {
                asset: Some(event.asset.clone()),
                extent,
                cause: Cause::Delivery,
                state: Vec::new(),
            }));
        }
        out.push(Item::Event(event));
    }
}

/// What is known after so many interruptions, as a count of them: one less where nothing proves yet that the connection delivers.
fn proves(interruptions: u64, proven: bool) -> u64 {
    interruptions.saturating_sub(u64::from(!proven))
}

fn offset(event: &Event) -> u64 {
    event.cursor.as_ref().map_or(0, |cursor| cursor.offset)
}

fn lane_of(event: &Event) -> Option<Lane> {
    let cursor = event.cursor.as_ref()?;
    Some((event.asset.clone(), cursor.topic.clone(), cursor.partition))
}

#[cfg(test)]
mod tests;
