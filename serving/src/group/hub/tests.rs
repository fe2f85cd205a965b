//! Clients that come and go, and miss nothing.

use std::time::Duration;

use proptest::prelude::*;

use super::super::queue::{Next, STALL};
use super::super::seen::AssetTag;
use super::*;

const PARTITIONS: u32 = 2;

/// What clients watch.
const MINE: [&str; 2] = ["A", "B"];

/// The topic: the source of truth that a range read goes to.
#[derive(Default)]
struct Topic {
    records: Vec<(u32, u64, &'static str)>,
    next: [u64; PARTITIONS as usize],
}

impl Topic {
    /// The next records, which the hub is given together at `now`. Those without asset are nobody's event.
    fn append(&mut self, hub: &Hub, records: &[(u32, Option<&'static str>)], now: Instant) {
        let mut position = Position::new("t", self.next.to_vec());
        let mut frames = Vec::new();
        for (partition, asset) in records {
            let next = &mut self.next[*partition as usize];
            position.saw(*partition, *next);
            if let Some(asset) = asset {
                self.records.push((*partition, *next, asset));
                frames.push(frame(*partition, *next, asset, Some(&position)));
            }
            *next += 1;
        }
        hub.publish(&frames, &(0..).zip(self.next).collect(), || now);
    }

    fn of(&self, assets: &[&str], from: &Position) -> Vec<(u32, u64)> {
        let mut found: Vec<(u32, u64)> = self
            .records
            .iter()
            .filter(|(partition, offset, asset)| {
                assets.contains(asset) && *offset >= from.next(*partition)
            })
            .map(|(partition, offset, _)| (*partition, *offset))
            .collect();
        found.sort_unstable();
        found
    }
}

fn frame(partition: u32, offset: u64, asset: &str, at: Option<&Position>) -> Arc<Frame> {
    let value = format!("{partition}/{offset}");
    Arc::new(Frame::new(
        (partition, offset),
        asset.into(),
        None,
        value.as_bytes(),
        at,
    ))
}

fn hub(room: usize) -> Arc<Hub> {
    let limits = Limits {
        ring_bytes: room * 150,
        queue_bytes: 1 << 20,
    };
    Arc::new(Hub::new("t", vec![0; PARTITIONS as usize], limits))
}

/// What a client has written down: the events, and the id after each.
fn written(bytes: &[u8]) -> Vec<((u32, u64), Position)> {
    let text = std::str::from_utf8(bytes).unwrap();
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().to_owned()
            };
            let (partition, offset) = field("data: ")
                .split_once('/')
                .map(|(p, o)| (p.parse().unwrap(), o.parse().unwrap()))
                .unwrap();
            (
                (partition, offset),
                Position::parse(&field("id: ")).unwrap(),
            )
        })
        .collect()
}

/// A client of the assets A and B.
struct Client {
    hub: Arc<Hub>,
    selection: Arc<Selection>,
    position: Position,
    received: Vec<(u32, u64)>,
    subscription: Option<Subscription>,
}

impl Client {
    fn new(hub: &Arc<Hub>) -> Self {
        Self {
            hub: Arc::clone(hub),
            selection: Arc::new(Selection::from_query(Some("asset_uuid=A,B")).unwrap()),
            position: hub.position(),
            received: Vec::new(),
            subscription: None,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        for (event, id) in written(bytes) {
            self.received.push(event);
            self.position = id;
        }
    }

    /// Takes all that waits. One that was left out has to catch up.
    fn take(&mut self) {
        while let Some(live) = &self.subscription {
            match live.queue().take() {
                Next::Write(bytes) => self.note(&bytes),
                Next::Nothing => return,
                Next::Behind(position) => {
                    self.position = position;
                    self.subscription = None;
                }
                Next::Close => self.subscription = None,
            }
        }
    }

    /// Gets what it lacks, until it is live.
    fn join(&mut self, topic: &Topic) {
        while self.subscription.is_none() {
            let seen = self.position.clone().into();
            let joined = self.hub.join(&self.selection, &seen, &Arrivals::default());
            let frames = match joined {
                Join::Live(frames, live) => {
                    self.subscription = Some(live);
                    frames
                }
                Join::More(frames) => frames,
                Join::Read {
                    partition,
                    from,
                    to,
                } => {
                    let wanted = topic.of(&MINE, &Position::new("t", Vec::new()));
                    let wanted = wanted
                        .into_iter()
                        .filter(|(p, offset)| *p == partition && (from..to).contains(offset));
                    self.received.extend(wanted);
                    self.position.advance(partition, to);
                    continue;
                }
                Join::Ahead => panic!("nobody is ahead"),
            };
            for frame in frames {
                let mut out = Vec::new();
                self.position.saw(frame.partition, frame.offset);
                frame.write_at(&self.position, &mut out);
                self.note(&out);
            }
        }
    }
}

/// Records of some assets and of none, several of one after the other as they come.
fn records() -> impl Strategy<Value = Vec<(u32, Option<&'static str>)>> {
    let asset = prop_oneof![
        4 => Just(Some("A")),
        2 => Just(Some("B")),
        2 => Just(Some("C")),
        1 => Just(None),
    ];
    proptest::collection::vec((0u32..PARTITIONS, asset), 1..6)
}

proptest! {
    /// A client that goes and comes back at any moments, with the id of the last event it has seen, and takes nothing at others, at a
    /// service with any little memory, gets every event once and each partition's in order.
    #[test]
    fn a_client_that_comes_back_has_missed_nothing(
        steps in proptest::collection::vec((records(), any::<bool>(), 0u8..6), 1..80),
        room in 0usize..30,
    ) {
        let hub = hub(room);
        let mut topic = Topic::default();
        let start = hub.position();
        let mut client = Client::new(&hub);
        for (records, is_late, action) in steps {
            let now = Instant::now() + if is_late { STALL } else { Duration::ZERO };
            topic.append(&hub, &records, now);
            match action {
                0 => client.subscription = None,
                1 => client.join(&topic),
                2..4 => client.take(),
                _ => {}
            }
        }
        client.take();
        client.join(&topic);
        let received = client.received;
        let in_order = |partition: u32| received.iter().filter(move |(p, _)| *p == partition).copied().collect::<Vec<_>>();
        let mut by_partition: Vec<(u32, u64)> = (0..PARTITIONS).flat_map(in_order).collect();
        prop_assert!(by_partition.is_sorted());
        by_partition.dedup();
        prop_assert_eq!(by_partition.len(), received.len());
        prop_assert_eq!(by_partition, topic.of(&MINE, &start));
    }
}

/// Memory gives little at a time, of several assets in the topic's order.
#[test]
fn what_is_joined_in_parts_is_complete() {
    let limits = Limits {
        ring_bytes: 1 << 30,
        queue_bytes: 1 << 20,
    };
    let hub = Arc::new(Hub::new("t", vec![0; PARTITIONS as usize], limits));
    let selection = Arc::new(Selection::from_query(Some("asset_uuid=A,B")).unwrap());
    let mut position = hub.position();
    let mut expected = Vec::new();
    for offset in 0..20 {
        // B's are few and at the end.
        let asset = if offset < 15 { "A" } else { "B" };
        let value = vec![b' '; JOIN_BYTES / 3];
        for partition in 0..PARTITIONS {
            let frame = Frame::new((partition, offset), asset.into(), None, &value, None);
            hub.publish(&[Arc::new(frame)], &BTreeMap::new(), Instant::now);
            expected.push((partition, offset));
        }
    }
    let mut received = Vec::new();
    loop {
        let seen = position.clone().into();
        let (frames, is_live) = match hub.join(&selection, &seen, &Arrivals::default()) {
            Join::Live(frames, _) => (frames, true),
            Join::More(frames) => (frames, false),
            Join::Read { .. } | Join::Ahead => panic!("memory has all of it"),
        };
        for frame in frames {
            position.saw(frame.partition, frame.offset);
            received.push((frame.partition, frame.offset));
        }
        if is_live {
            break;
        }
    }
    expected.sort_unstable();
    assert_eq!(received, expected);
}

#[test]
fn one_that_is_ahead_is_told() {
    let hub = hub(10);
    let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
    let join = |next| {
        let seen = Position::new("t", next).into();
        hub.join(&selection, &seen, &Arrivals::default())
    };
    assert!(matches!(join(vec![1]), Join::Ahead));
    assert!(!hub.lacks_partition());
    // Another replica reads more partitions already.
    assert!(matches!(join(vec![0, 0, 1]), Join::Ahead));
    assert!(hub.lacks_partition());
    assert!(!hub.lacks_partition());
}

/// An id beyond events that a client did not get would make it miss them for good.
#[test]
fn one_that_fell_behind_is_told_no_newer_id() {
    let limits = Limits {
        ring_bytes: 1 << 20,
        queue_bytes: 1,
    };
    let hub = Arc::new(Hub::new("t", vec![0], limits));
    let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
    let Join::Live(_, subscription) =
        hub.join(&selection, &hub.position().into(), &Arrivals::default())
    else {
        panic!("there is nothing to catch up");
    };
    assert!(subscription.quiet_position().is_some());
    let frames = [0, 1].map(|offset| frame(0, offset, "A", Some(&hub.position())));
    let mut delivered = frames
        .chunks(1)
        .map(|frame| hub.publish(frame, &BTreeMap::new(), Instant::now));
    let (one, too_much) = (
        Delivered { events: 1, slow: 0 },
        Delivered { events: 0, slow: 1 },
    );
    assert_eq!(
        [delivered.next(), delivered.next()],
        [Some(one), Some(too_much)]
    );
    assert_eq!(subscription.quiet_position(), None);
    // Its connection has not ended yet, but costs the others nothing any more.
    assert_eq!(hub.watchers(), 0);
}

/// Whatever attributes it asks for.
#[test]
fn one_is_sent_away_when_its_asset_comes_from_a_group_where_it_has_not_been() {
    let hub = hub(10);
    let query = Some("asset_uuid=A&id=temperature");
    let selection = Arc::new(Selection::from_query(query).unwrap());
    let known = Arrivals::of(&[AssetTag::of("A")], &["paint".into()]);
    let mut next = 0;
    let mut is_open = |arrivals: &Arrivals, from: &[&str]| {
        let Join::Live(_, subscription) = hub.join(&selection, &hub.position().into(), arrivals)
        else {
            panic!("there is nothing to catch up");
        };
        for from in from {
            let frame = Frame::new((0, next), "A".into(), None, b"{}", Some(&hub.position()));
            let frame = frame.moved_from(Some((*from).into()));
            hub.publish(&[Arc::new(frame)], &BTreeMap::new(), Instant::now);
            next += 1;
        }
        subscription.queue().take() == Next::Nothing
    };
    assert!(!is_open(&Arrivals::default(), &["paint"]));
    assert!(is_open(&known, &["paint"]));
    assert!(!is_open(&known, &["paint"]));
    let known = Arrivals::of(&[AssetTag::of("A")], &["paint".into()]);
    assert!(!is_open(&known, &["store"]));
}

/// It costs the others nothing until it takes something, and its place in the topic is not lost.
#[test]
fn one_that_takes_nothing_is_left_out_until_it_does() {
    let (hub, begun) = (hub(10), Instant::now());
    let mut topic = Topic::default();
    let mut client = Client::new(&hub);
    client.join(&topic);
    let of_a = [(0, Some("A"))];
    topic.append(&hub, &of_a, begun);
    topic.append(&hub, &of_a, begun);
    assert_eq!(hub.watchers(), 2);
    topic.append(&hub, &of_a, begun + STALL);
    assert_eq!(hub.watchers(), 1);
    topic.append(&hub, &of_a, begun + STALL);
    client.take();
    assert_eq!(client.received, [(0, 0), (0, 1)]);
    client.join(&topic);
    assert_eq!(client.received, [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert_eq!(hub.watchers(), 2);
}

/// An asset that arrives while its client is left out is one that it is prepared for still when it catches up.
#[test]
fn one_that_is_left_out_keeps_its_arrivals() {
    let (hub, begun) = (hub(10), Instant::now());
    let selection = Arc::new(Selection::from_query(Some("asset_uuid=A,B")).unwrap());
    let arrivals = Arrivals::of(&[AssetTag::of("A"), AssetTag::of("B")], &["paint".into()]);
    let Join::Live(_, live) = hub.join(&selection, &hub.position().into(), &arrivals) else {
        panic!("there is nothing to catch up");
    };
    let publish = |offset, asset, from: Option<&str>, now| {
        let at = hub.position();
        let frame = Frame::new((0, offset), Arc::from(asset), None, b"{}", Some(&at));
        let frame = Arc::new(frame.moved_from(from.map(Into::into)));
        hub.publish(&[frame], &BTreeMap::new(), || now);
    };
    publish(0, "A", Some("paint"), begun);
    publish(1, "A", None, begun + STALL);
    publish(2, "B", Some("paint"), begun + STALL);
    assert!(matches!(live.queue().take(), Next::Write(_)));
    assert!(matches!(live.queue().take(), Next::Behind(_)));
    assert!(!arrivals.take("A", Some("paint")));
    assert!(arrivals.take("B", Some("paint")));
}

/// What nobody is given counts too: a later event's id names it.
#[test]
fn an_id_that_counts_nobodys_events_is_not_ahead() {
    let hub = hub(10);
    let mut topic = Topic::default();
    topic.append(&hub, &[(1, None), (0, Some("A"))], Instant::now());
    let mut client = Client::new(&hub);
    client.position = Position::new("t", vec![1, 1]);
    client.join(&topic);
    assert!(client.subscription.is_some());
}

#[test]
fn one_that_goes_leaves_nothing_behind() {
    let hub = hub(10);
    let selection = Arc::new(Selection::from_query(Some("asset_uuid=A,B")).unwrap());
    let Join::Live(_, subscription) =
        hub.join(&selection, &hub.position().into(), &Arrivals::default())
    else {
        panic!("there is nothing to catch up");
    };
    assert_eq!(hub.watchers(), 2);
    drop(subscription);
    assert_eq!(hub.watchers(), 0);
}
