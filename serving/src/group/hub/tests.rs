//! Clients that come and go, and miss nothing.

use proptest::prelude::*;

use super::super::queue::Next;
use super::super::seen::AssetTag;
use super::*;

const PARTITIONS: u32 = 2;

/// The topic: the source of truth that a range read goes to.
#[derive(Default)]
struct Topic {
    records: Vec<(u32, u64, &'static str)>,
    next: [u64; PARTITIONS as usize],
}

impl Topic {
    fn append(&mut self, hub: &Hub, partition: u32, asset: &'static str) {
        let next = &mut self.next[partition as usize];
        self.records.push((partition, *next, asset));
        let mut position = hub.position();
        position.saw(partition, *next);
        hub.publish(vec![frame(partition, *next, asset, Some(&position))]);
        *next += 1;
    }

    fn of(&self, asset: &str, from: &Position) -> Vec<(u32, u64)> {
        let mut found: Vec<(u32, u64)> = self
            .records
            .iter()
            .filter(|(partition, offset, a)| *a == asset && *offset >= from.next(*partition))
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

proptest! {
    /// A client that goes and comes back at any moments, with the id of the last event it has seen, at a
    /// service with any little memory, gets every event once and each partition's in order.
    #[test]
    fn a_client_that_comes_back_has_missed_nothing(
        steps in proptest::collection::vec((0u32..PARTITIONS, any::<bool>(), 0u8..6), 1..120),
        room in 0usize..30,
    ) {
        let hub = hub(room);
        let mut topic = Topic::default();
        let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
        let start = hub.position();
        let mut position = start.clone();
        let mut received = Vec::new();
        let mut subscription: Option<Subscription> = None;
        let last = steps.len() - 1;
        for (index, (partition, mine, action)) in steps.into_iter().enumerate() {
            topic.append(&hub, partition, if mine { "A" } else { "B" });
            if let Some(live) = &subscription {
                while let Next::Write(bytes) = live.queue().take() {
                    for (event, id) in written(&bytes) {
                        received.push(event);
                        position = id;
                    }
                }
            }
            if action == 0 {
                subscription = None;
            }
            while subscription.is_none() && (action == 1 || index == last) {
                let frames = match hub.join(&selection, &position.clone().into(), &Arrivals::default()) {
                    Join::Live(frames, live) => { subscription = Some(live); frames }
                    Join::More(frames) => frames,
                    Join::Read { partition, from, to } => {
                        let mut read = Vec::new();
                        for (_, offset, asset) in topic.records.iter().filter(|(p, o, a)| *p == partition && (from..to).contains(o) && *a == "A") {
                            read.push(frame(partition, *offset, asset, None));
                        }
                        received.extend(read.iter().map(|frame| (frame.partition, frame.offset)));
                        position.advance(partition, to);
                        continue;
                    }
                    Join::Ahead => { prop_assert!(false, "nobody is ahead"); break }
                };
                for frame in frames {
                    let mut out = Vec::new();
                    position.saw(frame.partition, frame.offset);
                    frame.write_at(&position, &mut out);
                    for (event, id) in written(&out) {
                        received.push(event);
                        position = id;
                    }
                }
            }
        }
        let in_order = |partition: u32| received.iter().filter(move |(p, _)| *p == partition).copied().collect::<Vec<_>>();
        let mut by_partition: Vec<(u32, u64)> = (0..PARTITIONS).flat_map(in_order).collect();
        prop_assert!(by_partition.is_sorted());
        by_partition.dedup();
        prop_assert_eq!(by_partition.len(), received.len());
        prop_assert_eq!(by_partition, topic.of("A", &start));
    }
}

#[test]
fn one_that_is_ahead_is_told() {
    let hub = hub(10);
    let selection = Arc::new(Selection::from_query(Some("asset_uuid=A")).unwrap());
    let ahead = Position::new("t", vec![1]);
    assert!(matches!(
        hub.join(&selection, &ahead.into(), &Arrivals::default()),
        Join::Ahead
    ));
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
    let frames = (0..2).map(|offset| frame(0, offset, "A", Some(&hub.position())));
    let delivered = hub.publish(frames.collect());
    assert_eq!((delivered.events, delivered.closed), (1, 1));
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
            hub.publish(vec![Arc::new(frame)]);
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
