use proptest::prelude::*;

use super::*;

/// Every third offset is the asset's.
fn event(index: u64, knows_prev: bool) -> Event {
    Event {
        prev: (knows_prev && index > 0).then(|| (index - 1) * 3),
        ..Event::of("a", 0, index * 3)
    }
}

fn offsets(items: &[Item]) -> Vec<u64> {
    let offset = |item: &Item| match item {
        Item::Event(event) => event.cursor.as_ref().map(|cursor| cursor.offset / 3),
        _ => None,
    };
    items.iter().filter_map(offset).collect()
}

fn gaps(items: &[Item]) -> usize {
    items
        .iter()
        .filter(|item| matches!(item, Item::Gap(_)))
        .count()
}

/// What is missing is asked for, and the first event has come.
fn filling() -> (Sequencer, Vec<Item>) {
    let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
    sequencer.begin_filling();
    sequencer.push(event(0, true), Origin::Current, &mut out);
    (sequencer, out)
}

#[test]
fn what_the_former_shard_never_gives_becomes_a_gap() {
    let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
    sequencer.push(event(0, true), Origin::Current, &mut out);
    sequencer.begin_move();
    sequencer.push(event(3, true), Origin::Current, &mut out);
    sequencer.push(event(4, true), Origin::Current, &mut out);
    assert_eq!(offsets(&out), [0]);
    sequencer.end_move(&mut out);
    assert_eq!(offsets(&out), [0, 3, 4]);
    assert_eq!(gaps(&out), 1);
}

#[test]
fn in_a_move_one_connection_proves_nothing_about_the_other() {
    let (mut sequencer, mut out) = filling();
    sequencer.begin_move();
    sequencer.push(event(1, true), Origin::Current, &mut out);
    // The asset may have been on the new shard only since the second event, and be back.
    sequencer.push(event(4, false), Origin::Former, &mut out);
    assert_eq!(offsets(&out), [0, 1]);
    assert!(sequencer.is_waiting());
    for index in 2..=4 {
        sequencer.fill(event(index, false), &mut out);
    }
    assert_eq!(offsets(&out), [0, 1, 2, 3, 4]);
}

#[test]
fn until_a_connection_surely_delivers_an_event_proves_nothing_about_the_next() {
    let (mut sequencer, mut out) = filling();
    sequencer.interrupted();
    let asked_at = sequencer.positions().interruptions();
    let heads = |index: u64| Heads::from([(0, index * 3 + 1)]);
    sequencer.complete(("t", &heads(0)), asked_at, false, &mut out);
    // Of a forwarder that repeats what another has published already, as it has the third.
    sequencer.push(event(1, true), Origin::Current, &mut out);
    sequencer.push(event(3, false), Origin::Current, &mut out);
    assert_eq!(offsets(&out), [0, 1]);
    assert!(sequencer.is_waiting());
    sequencer.fill(event(2, false), &mut out);
    sequencer.complete(("t", &heads(3)), asked_at, true, &mut out);
    assert_eq!(offsets(&out), [0, 1, 2, 3]);
    sequencer.push(event(4, true), Origin::Current, &mut out);
    sequencer.push(event(5, false), Origin::Current, &mut out);
    assert_eq!(offsets(&out), [0, 1, 2, 3, 4, 5]);
}

proptest! {
    /// The former shard has 0..=switch+overlap, the current one switch.., in any interleaving: the stream
    /// is complete and in order, and no gap is named; also when the former one is left as soon as the current one has arrived.
    #[test]
    fn a_move_loses_and_reorders_nothing(
        count in 2..40u64,
        switch in 0..40u64,
        overlap in 0..10u64,
        first_is_seen: bool,
        knows_prev: bool,
        ends_early: bool,
        turns in proptest::collection::vec(any::<bool>(), 120),
    ) {
        let switch = switch % count;
        // Without knowledge of the event before, only an overlap can show that nothing is missing.
        let overlap = if knows_prev { overlap } else { count };
        let mut former = (0..(switch + overlap).min(count)).collect::<Vec<_>>().into_iter();
        let mut current = (switch..count).collect::<Vec<_>>().into_iter();
        let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
        if first_is_seen && let Some(index) = former.next() {
            sequencer.push(event(index, knows_prev), Origin::Current, &mut out);
        }
        sequencer.begin_move();
        let mut turns = turns.into_iter();
        loop {
            let former_first = turns.next().unwrap_or(true);
            let order = if former_first { [Origin::Former, Origin::Current] } else { [Origin::Current, Origin::Former] };
            let next = order.into_iter().find_map(|origin| {
                let index = match origin { Origin::Former => former.next(), Origin::Current => current.next() };
                index.map(|index| (origin, index))
            });
            let Some((origin, index)) = next else { break };
            sequencer.push(event(index, knows_prev), origin, &mut out);
            if ends_early && sequencer.has_arrived() {
                former = Vec::new().into_iter();
            }
        }
        sequencer.end_move(&mut out);
        prop_assert_eq!(offsets(&out), (0..count).collect::<Vec<_>>());
        prop_assert_eq!(gaps(&out), 0);
    }
}
