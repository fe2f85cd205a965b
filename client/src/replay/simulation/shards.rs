//! Two shards: what forwarders publish on them, and the subscription's connection to each.

use std::collections::VecDeque;

use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use tokio::time::Instant;

use crate::event::Event;
use crate::grace::Grace;
use crate::sequencer::Origin;
use crate::source::Anew;

/// One of the two.
pub(super) type Shard = usize;

pub(super) const SHARDS: [Shard; 2] = [0, 1];

/// A connection of the subscription.
#[derive(Default)]
struct Link {
    /// Whether the subscription wants the shard's events.
    subscribed: bool,
    connected: bool,
    was_connected: bool,
    /// Whether the forwarder's node knows the subscription.
    known: bool,
    /// What is on its way.
    wire: VecDeque<Event>,
    /// A connection of which the subscription has not heard.
    news: Option<Anew>,
}

impl Link {
    fn delivers(&self) -> bool {
        self.subscribed && self.connected && self.known
    }

    /// The connection stays, for other subscriptions.
    fn leave(&mut self) {
        self.subscribed = false;
        self.known = false;
        self.wire.clear();
    }
}

/// What forwarders do with the asset, and what clients are told.
struct Map {
    home: Shard,
    /// Where it is announced to go: forwarders publish it on both.
    next: Option<Shard>,
}

/// The model of both.
pub(super) struct Shards {
    links: [Link; 2],
    /// What was published on each, whether or not it arrived.
    published: [Vec<Event>; 2],
    map: Map,
    /// Where the subscription listens.
    current: Shard,
    former: Option<(Shard, Grace)>,
}

impl Shards {
    /// The subscription stands on the first.
    pub(super) fn new() -> Self {
        let mut shards = Self {
            links: <[Link; 2]>::default(),
            published: [Vec::new(), Vec::new()],
            map: Map {
                home: 0,
                next: None,
            },
            current: 0,
            former: None,
        };
        shards.links[0] = Link {
            subscribed: true,
            connected: true,
            was_connected: true,
            known: true,
            ..Link::default()
        };
        shards
    }

    /// A forwarder publishes an event; on each shard it reaches the subscription where `passes` says so.
    pub(super) fn publish(&mut self, event: &Event, mut passes: impl FnMut() -> bool) {
        for shard in [Some(self.map.home), self.map.next].into_iter().flatten() {
            self.published[shard].push(event.clone());
            let link = &mut self.links[shard];
            if link.delivers() && passes() {
                link.wire.push_back(event.clone());
            }
        }
    }

    /// A forwarder that was thought dead publishes an event once more, where it had been.
    pub(super) fn publish_again(&mut self, shard: Shard, dice: &mut SmallRng) {
        let link = &mut self.links[shard];
        if let Some(event) = self.published[shard].choose(dice)
            && link.delivers()
        {
            link.wire.push_back(event.clone());
        }
    }

    /// A change of the map is announced; or an announced one is made, or called off.
    pub(super) fn change_map(&mut self, dice: &mut SmallRng) {
        match self.map.next {
            None => self.map.next = Some(1 - self.map.home),
            Some(_) if dice.random() => self.end_change(),
            Some(_) => self.map.next = None,
        }
    }

    /// Whether the subscription is where the map has sent it. If not, the next change may bring the asset back to where it listens,
    /// and what was published meanwhile is not noticed.
    pub(super) fn has_moved(&self) -> bool {
        self.map.next.is_some() || self.current == self.map.home
    }

    /// What is announced is made.
    pub(super) fn end_change(&mut self) {
        if let Some(next) = self.map.next.take() {
            self.map.home = next;
        }
    }

    /// Where the subscription is to go, if it is not there.
    pub(super) fn told(&self) -> Option<Shard> {
        let told = self.map.next.unwrap_or(self.map.home);
        (told != self.current).then_some(told)
    }

    /// The subscription goes there, and listens to where it was.
    pub(super) fn follow(&mut self, shard: Shard, now: Instant) {
        self.links[shard].subscribed = true;
        self.former = Some((self.current, Grace::new(now)));
        self.current = shard;
    }

    /// It goes there and forgets where it was.
    pub(super) fn switch(&mut self, shard: Shard) {
        self.links[shard].subscribed = true;
        self.links[self.current].leave();
        self.current = shard;
    }

    pub(super) fn grace(&mut self) -> Option<&mut Grace> {
        self.former.as_mut().map(|(_, grace)| grace)
    }

    /// The former shard is not listened to any more. Whether there was one.
    pub(super) fn leave_former(&mut self) -> bool {
        let former = self.former.take();
        if let Some((shard, _)) = &former {
            self.links[*shard].leave();
        }
        former.is_some()
    }

    pub(super) fn is_connected(&self, shard: Shard) -> bool {
        self.links[shard].connected
    }

    pub(super) fn connect(&mut self, shard: Shard) {
        let link = &mut self.links[shard];
        let before = std::mem::replace(&mut link.was_connected, true);
        link.connected = true;
        link.news = Some(if before { Anew::Again } else { Anew::First });
    }

    /// The connection is lost, with some of what is on its way.
    pub(super) fn disconnect(&mut self, shard: Shard, dice: &mut SmallRng) {
        let link = &mut self.links[shard];
        link.connected = false;
        link.known = false;
        let kept = dice.random_range(0..=link.wire.len());
        link.wire.truncate(kept);
    }

    /// Nodes tell each other of the subscription.
    pub(super) fn make_known(&mut self) {
        for link in &mut self.links {
            link.known |= link.connected && link.subscribed;
        }
    }

    /// The next event of a shard.
    pub(super) fn next(&mut self, shard: Shard) -> Option<Event> {
        self.links[shard].wire.pop_front()
    }

    /// A connection of which the subscription has not heard.
    pub(super) fn news(&mut self, shard: Shard) -> Option<Anew> {
        let news = self.links[shard].news.take();
        news.filter(|_| self.links[shard].subscribed)
    }

    pub(super) fn origin(&self, shard: Shard) -> Origin {
        if shard == self.current {
            Origin::Current
        } else {
            Origin::Former
        }
    }
}
