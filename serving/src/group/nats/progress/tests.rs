//! A client that goes from one instance to another at any moment has every event once and in order.

use std::collections::BTreeMap;
use std::mem;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::super::position::Position;
use super::super::super::queue::STALL;
use super::super::inbox::Next;
use super::super::lane::{Memory, Offsets};
use super::*;

const ASSETS: [&str; 3] = ["A", "B", "C"];
const INSTANCES: usize = 2;

/// What the client has got: partition, offset.
type Received = BTreeMap<&'static str, Vec<(u32, u64)>>;

/// One asset at one instance, and how much of the topic has come to it.
struct Feed {
    lane: Lane,
    asset: &'static str,
    next: [u64; 2],
}

/// The topic, the source of truth that a range read goes to: whose each record is.
type Topic = [Vec<&'static str>; 2];

struct World {
    topic: Topic,
    instances: Vec<Vec<Feed>>,
    /// The instance it is connected to, and what waits there.
    client: Option<(usize, Progress, Arc<Watcher>)>,
    /// The last id it was given.
    id: String,
    received: Received,
    room: usize,
    /// How much later than the last event the next one comes.
    late: Duration,
}

fn frame(partition: u32, offset: u64, asset: &str) -> Arc<Frame> {
    let value = format!("{asset}/{partition}/{offset}");
    let id = Some("x".into());
    Arc::new(Frame::new(
        (partition, offset),
        asset.into(),
        id,
        value.as_bytes(),
        None,
    ))
}

impl World {
    fn new(room: usize) -> Self {
        Self {
            topic: Topic::default(),
            instances: (0..INSTANCES).map(|_| Vec::new()).collect(),
            client: None,
            id: "t".to_owned(),
            received: Received::new(),
            room,
            late: Duration::ZERO,
        }
    }

    fn end(&self, partition: usize) -> u64 {
        self.topic[partition].len() as u64
    }

    /// Some records of an asset's partition come to an instance, or are lost on the way and that is told.
    fn feed(
        &mut self,
        instance: usize,
        asset: usize,
        partition: usize,
        count: u64,
        are_lost: bool,
    ) {
        let end = self.end(partition);
        let Some(feed) = self.instances[instance].get_mut(asset) else {
            return;
        };
        let to = (feed.next[partition] + count).min(end);
        let number = u32::try_from(partition).unwrap();
        let now = Instant::now() + mem::take(&mut self.late);
        if !are_lost {
            let is_mine = |offset: &u64| {
                self.topic[partition][usize::try_from(*offset).unwrap()] == feed.asset
            };
            let offsets = (feed.next[partition]..to).filter(is_mine);
            let frames = offsets.map(|offset| frame(number, offset, feed.asset));
            feed.lane.publish(&frames.collect::<Vec<_>>(), now);
        } else if to > feed.next[partition] {
            feed.lane.lost(number, to);
        }
        feed.next[partition] = to;
    }

    fn complete(&mut self, instance: usize, asset: usize) {
        if let Some(feed) = self.instances[instance].get(asset) {
            let complete = feed.lane.complete((0..).zip(feed.next).collect());
            assert!(complete.is_some());
        }
    }

    /// The instance's subscriptions, begun for this client if there are none.
    fn subscribe(&mut self, instance: usize, seen: &Seen, from_now: bool) {
        if !self.instances[instance].is_empty() {
            return;
        }
        let memory = Memory::new(self.room);
        let ends = [self.end(0), self.end(1)];
        for asset in ASSETS {
            let lane = Lane::new(AssetTag::of(asset), &memory);
            let first = |partition: u32| {
                let end = ends[partition as usize];
                if from_now {
                    end
                } else {
                    seen.next(lane.tag(), partition).min(end)
                }
            };
            let next = [first(0), first(1)];
            lane.open((0..).zip(next).collect::<Offsets>());
            self.instances[instance].push(Feed { lane, asset, next });
        }
    }

    fn connect(&mut self, instance: usize, from_now: bool) {
        let selection = Selection::from_query(Some("asset_uuid=A,B,C")).unwrap();
        let seen = Seen::parse(&self.id).unwrap();
        self.subscribe(instance, &seen, from_now);
        self.join(
            instance,
            Progress::new(selection, seen, Arrivals::default()),
        );
    }

    fn join(&mut self, instance: usize, mut progress: Progress) {
        loop {
            let lanes = self.instances[instance].iter().map(|feed| &feed.lane);
            let bytes = match progress.join(lanes, self.room) {
                Step::Live(watcher) => {
                    self.client = Some((instance, progress, watcher));
                    return;
                }
                Step::Write(bytes) => bytes,
                Step::Again => continue,
                Step::Read(lack) => {
                    let page = self.page(&lack);
                    progress.read(&lack, &page)
                }
            };
            self.note(&bytes);
        }
    }

    /// At most three records of what is asked for.
    fn page(&self, lack: &Lack) -> Page<Frame> {
        let next = lack.to.min(lack.from + 3);
        let records = &self.topic[lack.partition as usize];
        let items = (lack.from..next).map(|offset| {
            frame(
                lack.partition,
                offset,
                records[usize::try_from(offset).unwrap()],
            )
        });
        Page {
            items: items.collect(),
            next,
            lost: None,
        }
    }

    /// The client takes something of what waits; one that was left out catches up, and one that was sent away is gone.
    fn take(&mut self) -> bool {
        let Some((_, progress, watcher)) = &mut self.client else {
            return false;
        };
        match watcher.inbox.take() {
            Next::Take(items) => {
                let bytes = progress.take(&items);
                self.note(&bytes);
                true
            }
            Next::Nothing => false,
            Next::Behind => {
                if let Some((instance, progress)) = self.leave() {
                    self.join(instance, progress);
                }
                true
            }
            Next::Close => {
                self.leave();
                false
            }
        }
    }

    fn leave(&mut self) -> Option<(usize, Progress)> {
        let (instance, progress, watcher) = self.client.take()?;
        for feed in &self.instances[instance] {
            feed.lane.detach(&watcher);
        }
        Some((instance, progress))
    }

    fn note(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        for event in text.split("\n\n").filter(|event| !event.is_empty()) {
            let field = |name| {
                event
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap()
            };
            let mut parts = field("data: ").split('/');
            let asset = parts.next().unwrap();
            let asset = ASSETS.into_iter().find(|it| *it == asset).unwrap();
            let mut number = || parts.next().unwrap();
            let at = (number().parse().unwrap(), number().parse().unwrap());
            self.received.entry(asset).or_default().push(at);
            field("id: ").clone_into(&mut self.id);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for asset in ASSETS {
            let received = self.received.get(asset).cloned().unwrap_or_default();
            for partition in 0..2u32 {
                let records = (0..).zip(&self.topic[partition as usize]);
                let expected: Vec<u64> = records
                    .filter(|(_, it)| **it == asset)
                    .map(|(offset, _)| offset)
                    .collect();
                let of_it = received.iter().filter(|(it, _)| *it == partition);
                let got: Vec<u64> = of_it.map(|(_, offset)| *offset).collect();
                prop_assert_eq!(got, expected, "{} on {}", asset, partition);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Event {
    Append(usize, usize),
    Feed(usize, usize, usize, u64, bool),
    Complete(usize, usize),
    Take,
    Leave,
    /// Time passes, of which the client takes nothing.
    Wait,
    Connect(usize, bool),
    Restart(usize),
}

fn events() -> impl Strategy<Value = Event> {
    let (instance, asset, partition) = (0..INSTANCES, 0..ASSETS.len(), 0..2usize);
    prop_oneof![
        6 => (partition.clone(), asset.clone()).prop_map(|(p, a)| Event::Append(p, a)),
        9 => (instance.clone(), asset.clone(), partition, 1u64..6, prop::bool::weighted(0.1))
            .prop_map(|(i, a, p, count, lost)| Event::Feed(i, a, p, count, lost)),
        2 => (instance.clone(), asset).prop_map(|(i, a)| Event::Complete(i, a)),
        5 => Just(Event::Take),
        1 => Just(Event::Leave),
        1 => Just(Event::Wait),
        4 => (instance.clone(), any::<bool>()).prop_map(|(i, now)| Event::Connect(i, now)),
        1 => instance.prop_map(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_client_that_moves_between_instances_misses_and_repeats_nothing(
        events in proptest::collection::vec(events(), 1..150),
        room in 0usize..4_000,
    ) {
        let mut world = World::new(room);
        for event in events {
            match event {
                Event::Append(partition, asset) => world.topic[partition].push(ASSETS[asset]),
                Event::Feed(instance, asset, partition, count, lost) => world.feed(instance, asset, partition, count, lost),
                Event::Complete(instance, asset) => world.complete(instance, asset),
                Event::Take => { world.take(); }
                Event::Leave => { world.leave(); }
                Event::Wait => world.late = STALL,
                Event::Connect(instance, now) if world.client.is_none() => world.connect(instance, now),
                Event::Connect(..) => {}
                Event::Restart(instance) => {
                    if world.client.as_ref().is_some_and(|(at, ..)| *at == instance) {
                        world.leave();
                    }
                    world.instances[instance].clear();
                }
            }
        }
        // All that was written comes in the end, whoever was sent away meanwhile.
        world.leave();
        world.connect(0, false);
        for asset in 0..ASSETS.len() {
            for partition in 0..2 {
                while world.instances[0][asset].next[partition] < world.end(partition) {
                    world.feed(0, asset, partition, 1, false);
                    while world.take() {}
                    if world.client.is_none() {
                        world.connect(0, false);
                    }
                }
            }
        }
        while world.take() {}
        if world.client.is_none() {
            world.connect(0, false);
            while world.take() {}
        }
        world.check()?;
    }
}

#[test]
fn what_is_complete_makes_the_id_of_a_quiet_client_newer() {
    let memory = Memory::new(1 << 20);
    let lanes = ["A", "B"].map(|asset| Lane::new(AssetTag::of(asset), &memory));
    let selection = Selection::from_query(Some("asset_uuid=A,B")).unwrap();
    let mut progress = Progress::new(
        selection,
        Position::new("t", vec![5]).into(),
        Arrivals::default(),
    );
    for lane in &lanes {
        lane.open([(0, 5)].into());
    }
    let Step::Live(watcher) = progress.join(lanes.iter(), 1 << 20) else {
        panic!("nothing is missing");
    };
    lanes[0].publish(&[frame(0, 7, "A")], Instant::now());
    assert!(lanes[0].complete([(0, 20)].into()).is_some());
    assert!(lanes[1].complete([(0, 15)].into()).is_some());
    assert!(
        lanes[1].complete([(0, 14)].into()).is_none(),
        "a topic never gets shorter"
    );
    while let Next::Take(items) = watcher.inbox.take() {
        progress.take(&items);
    }
    let tag = KeyTag("A");
    assert_eq!(progress.seen().to_string(), format!("t/0/14;{tag}/0/19"));
}

/// It costs the others nothing until it takes something, and catches up from memory then.
#[test]
fn one_that_takes_nothing_is_left_out_until_it_does() {
    let lane = Lane::new(AssetTag::of("A"), &Memory::new(1 << 20));
    lane.open([(0, 0)].into());
    let selection = Selection::from_query(Some("asset_uuid=A")).unwrap();
    let begin = Position::new("t", vec![0]).into();
    let mut progress = Progress::new(selection, begin, Arrivals::default());
    let join = |progress: &mut Progress| match progress.join(std::iter::once(&lane), 1 << 20) {
        Step::Live(watcher) => watcher,
        _ => panic!("nothing has to be read"),
    };
    let watcher = join(&mut progress);
    let begun = Instant::now();
    let publish = |offset, after| {
        let delivered = lane.publish(&[frame(0, offset, "A")], begun + after);
        (delivered.events, delivered.slow)
    };
    assert_eq!(publish(0, Duration::ZERO), (1, 0));
    // One that takes something in between may stay, however late it is.
    assert!(matches!(watcher.inbox.take(), Next::Take(_)));
    assert_eq!(publish(1, STALL * 2), (1, 0));
    assert_eq!(publish(2, STALL * 3), (0, 1));
    assert_eq!(publish(3, STALL * 3), (0, 0));
    assert!(matches!(watcher.inbox.take(), Next::Behind));

    let watcher = join(&mut progress);
    let Next::Take(items) = watcher.inbox.take() else {
        panic!("memory has all of it");
    };
    let bytes = progress.take(&items);
    let text = std::str::from_utf8(&bytes).unwrap();
    assert_eq!(text.matches("event: asset_update").count(), 4, "{text}");
    assert_eq!(progress.seen().to_string(), "t/0/3");
}

/// An asset as ids have it.
struct KeyTag(&'static str);

impl std::fmt::Display for KeyTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", ofa_crds::KeyHash::of(self.0.as_bytes()).0)
    }
}

#[test]
fn what_retention_has_taken_is_told() {
    let lane = Lane::new(AssetTag::of("A"), &Memory::new(1 << 20));
    lane.open([(0, 100)].into());
    let selection = Selection::from_query(Some("asset_uuid=A")).unwrap();
    let mut progress = Progress::new(
        selection,
        Position::new("t", vec![5]).into(),
        Arrivals::default(),
    );
    let Step::Read(lack) = progress.join(std::iter::once(&lane), 1 << 20) else {
        panic!("memory begins at 100");
    };
    assert_eq!((lack.partition, lack.from, lack.to), (0, 5, 100));
    let page = Page {
        items: vec![frame(0, 60, "A")],
        next: 100,
        lost: Some(50),
    };
    let text = String::from_utf8(progress.read(&lack, &page).to_vec()).unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert!(events[0].starts_with("event: gap\n") && events[0].ends_with("id: t/0/49"));
    assert!(events[1].ends_with("id: t/0/60"), "{text}");
    assert_eq!(progress.seen().to_string(), "t/0/99");
}
