//! The step function by examples, and against a model of forwarders, routers and clients that all lag behind.

use std::sync::Arc;

use crate::shard_map::{KeyHash, Shard};
use proptest::prelude::*;

use super::*;

fn map(names: &str) -> ShardMap {
    addressed(names, "h")
}

fn addressed(names: &str, host: &str) -> ShardMap {
    let shards = names.chars().map(|name| Shard {
        name: name.to_string().parse().unwrap(),
        urls: vec![format!("nats://{name}.{host}:4222")],
        advertised_urls: vec![],
    });
    ShardMap::from_ring(0, shards.collect(), 16).unwrap()
}

/// A step with everybody up to date.
fn next(published: &ShardMap, wanted: &ShardMap) -> Action {
    step(&seen(published, wanted))
}

fn seen<'a>(published: &'a ShardMap, wanted: &'a ShardMap) -> Seen<'a> {
    static NONE: BTreeSet<ShardName> = BTreeSet::new();
    Seen {
        published: Some(published),
        wanted,
        not_ready: &NONE,
        without_credentials: None,
        forwarders_behind: &[],
        routers_behind: &[],
        routers_settled: GRACE,
        grace: GRACE,
    }
}

fn publish(action: Action) -> ShardMap {
    match action {
        Action::Publish(map) => map,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_of_owners_takes_three_steps() {
    let (old, new) = (map("AB").with_epoch(4), map("ABC"));
    let dual = publish(next(&old, &new));
    assert_eq!(
        (dual.epoch(), dual.handover()),
        (5, Some(HandoverPhase::DualPublish))
    );
    let announced = publish(next(&dual, &new));
    assert_eq!(
        (announced.epoch(), announced.handover()),
        (6, Some(HandoverPhase::Announce))
    );
    let done = publish(next(&announced, &new));
    assert_eq!((done.epoch(), done.handover()), (7, None));
    assert_eq!(next(&done, &new), Action::Nothing);
    assert!(done.moves_to(&new).is_empty());
}

#[test]
fn each_step_waits_for_those_who_act_by_it() {
    let (old, new) = (map("AB"), map("ABC"));
    let behind = ["x".to_owned()];
    let waits = |seen: &Seen<'_>, reason| assert_eq!(step(seen), Action::Wait(reason));
    let credentials = Seen {
        without_credentials: Some("x"),
        ..seen(&old, &new)
    };
    waits(&credentials, Reason::Credentials("x".into()));
    let dual = publish(next(&old, &new));
    let forwarders = Seen {
        forwarders_behind: &behind,
        ..seen(&dual, &new)
    };
    waits(&forwarders, Reason::Forwarders(vec!["x".into()]));
    let not_ready = BTreeSet::from(["C".parse().unwrap()]);
    let shards = Seen {
        not_ready: &not_ready,
        ..seen(&dual, &new)
    };
    waits(&shards, Reason::Shards(vec!["C".into()]));
    let announced = publish(next(&dual, &new));
    let routers = Seen {
        routers_behind: &behind,
        ..seen(&announced, &new)
    };
    waits(&routers, Reason::Routers(vec!["x".into()]));
    let clients = Seen {
        routers_settled: GRACE - Duration::from_secs(1),
        grace: GRACE,
        ..seen(&announced, &new)
    };
    waits(&clients, Reason::Clients(Duration::from_secs(1)));
}

#[test]
fn a_change_that_is_no_longer_wanted_goes_back() {
    let (old, new) = (map("AB"), map("ABC"));
    let dual = publish(next(&old, &new));
    let back = publish(next(&dual, &old));
    assert_eq!((back.handover(), same_owners(&back, &old)), (None, true));

    let announced = publish(next(&dual, &new));
    let aborted = publish(next(&announced, &old));
    assert_eq!(aborted.handover(), Some(HandoverPhase::Announce));
    assert!(same_owners(&aborted, &old), "clients are sent back at once");
    let done = publish(next(&aborted, &old));
    assert_eq!(next(&done, &old), Action::Nothing);
}

#[test]
fn other_addresses_need_no_handover() {
    let (old, moved) = (map("AB"), addressed("AB", "other"));
    let there = publish(next(&old, &moved));
    assert_eq!((there.epoch(), there.handover()), (1, None));
    assert_eq!(next(&there, &moved), Action::Nothing);

    for phase in [HandoverPhase::DualPublish, HandoverPhase::Announce] {
        let mut under_way = publish(next(&old, &map("ABC")));
        if phase == HandoverPhase::Announce {
            under_way = under_way.announce(2);
        }
        let moved = addressed("ABC", "other");
        let there = publish(next(&under_way, &moved));
        assert_eq!(there.handover(), Some(phase));
        assert!(same_addresses(&there, &moved));
        assert!(same_owners(&there, &under_way));
    }
}

/// What happens around the operator.
#[derive(Debug, Clone)]
enum Event {
    /// The resources ask for another set of shards.
    Want(usize),
    /// A shard fails or returns.
    Ready(bool),
    /// The operator, killed any number of times before, takes a step by what stands on the topic.
    Step,
    /// A forwarder reads the newest map and acknowledges it. A restarted one does the same.
    Forwarder(usize),
    /// A router reads the newest map and acknowledges it.
    Router(usize),
    /// A client asks its router again.
    Client(usize),
    /// As much time passes as clients need.
    Grace,
}

const WANTED: [&str; 5] = ["A", "AB", "ABC", "BC", "CD"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..WANTED.len()).prop_map(Event::Want),
        1 => any::<bool>().prop_map(Event::Ready),
        6 => Just(Event::Step),
        4 => (0..3_usize).prop_map(Event::Forwarder),
        3 => (0..2_usize).prop_map(Event::Router),
        2 => (0..4_usize).prop_map(Event::Client),
        2 => Just(Event::Grace),
    ]
}

/// Everybody acts by a map of their own, which may be long out of date.
struct World {
    topic: Arc<ShardMap>,
    wanted: ShardMap,
    all_ready: bool,
    settled: bool,
    forwarders: [Arc<ShardMap>; 3],
    routers: [Arc<ShardMap>; 2],
    /// The last two ask the second router.
    clients: [Arc<ShardMap>; 4],
}

impl World {
    fn new() -> Self {
        let first = Arc::new(map("AB").with_epoch(1));
        Self {
            wanted: map("AB"),
            all_ready: true,
            settled: false,
            forwarders: [(); 3].map(|()| first.clone()),
            routers: [(); 2].map(|()| first.clone()),
            clients: [(); 4].map(|()| first.clone()),
            topic: first,
        }
    }

    fn behind(&self, members: &[Arc<ShardMap>]) -> Vec<String> {
        let late = members
            .iter()
            .filter(|map| map.epoch() < self.topic.epoch());
        late.map(|map| map.epoch().to_string()).collect()
    }

    fn step(&mut self) -> Action {
        let names = self.wanted.shards().iter().map(|shard| shard.name.clone());
        let not_ready = names.filter(|_| !self.all_ready).collect();
        let action = step(&Seen {
            published: Some(&self.topic),
            wanted: &self.wanted,
            not_ready: &not_ready,
            without_credentials: None,
            forwarders_behind: &self.behind(&self.forwarders),
            routers_behind: &self.behind(&self.routers),
            routers_settled: if self.settled { GRACE } else { Duration::ZERO },
            grace: GRACE,
        });
        if let Action::Publish(map) = &action {
            assert_eq!(map.epoch(), self.topic.epoch() + 1);
            // As it is read back from the topic.
            let json = serde_json::to_vec(map).unwrap();
            self.topic = Arc::new(serde_json::from_slice(&json).unwrap());
            self.settled = false;
        }
        action
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Want(which) => self.wanted = map(WANTED[which]),
            Event::Ready(ready) => self.all_ready = ready,
            Event::Step => drop(self.step()),
            Event::Forwarder(which) => self.forwarders[which] = self.topic.clone(),
            Event::Router(which) => self.routers[which] = self.topic.clone(),
            Event::Client(which) => self.clients[which] = self.routers[which / 2].clone(),
            Event::Grace => {
                for client in 0..self.clients.len() {
                    self.happen(&Event::Client(client));
                }
                self.settled = self.behind(&self.routers).is_empty();
            }
        }
    }

    /// Where a client is, every forwarder publishes.
    fn check(&self) {
        let watched = self.clients.iter().chain(&self.routers);
        for hash in (0..64).map(|n| KeyHash(n * (u64::MAX / 64))) {
            for client in watched.clone() {
                let at = &client.shards()[client.index_of(hash)].name;
                for forwarder in &self.forwarders {
                    let places = [
                        Some(forwarder.index_of(hash)),
                        forwarder.second_index_of(hash),
                    ];
                    let mut shards = places
                        .iter()
                        .flatten()
                        .map(|&it| &forwarder.shards()[it].name);
                    assert!(
                        shards.any(|name| name == at),
                        "a forwarder of epoch {} does not publish to {at}, where a client of epoch {} is",
                        forwarder.epoch(),
                        client.epoch(),
                    );
                }
            }
        }
    }

    /// Nothing happens any more but what is always going on.
    fn converge(&mut self) {
        self.all_ready = true;
        for _ in 0..12 {
            if self.step() == Action::Nothing {
                assert!(same_owners(&self.topic, &self.wanted));
                assert_eq!(self.topic.handover(), None);
                return;
            }
            self.check();
            for forwarder in 0..self.forwarders.len() {
                self.happen(&Event::Forwarder(forwarder));
            }
            for router in 0..self.routers.len() {
                self.happen(&Event::Router(router));
            }
            self.happen(&Event::Grace);
            self.check();
        }
        panic!("no end is reached: {:?} for {:?}", self.topic, self.wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn clients_get_their_events_at_every_step_and_every_change_ends(
        events in proptest::collection::vec(event(), 0..80)
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.check();
        }
        world.converge();
    }
}
