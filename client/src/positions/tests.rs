use proptest::prelude::*;

use super::*;

fn at(partition: u32, offset: u64) -> Cursor {
    Cursor {
        topic: "t".into(),
        partition,
        offset,
    }
}

#[test]
fn the_first_event_is_no_gap_whatever_was_before() {
    let mut positions = Positions::default();
    assert_eq!(positions.accept("a", &at(0, 50), Some(40)), Verdict::Fresh);
    assert_eq!(positions.accept("b", &at(0, 60), Some(40)), Verdict::Fresh);
    assert_eq!(positions.accept("a", &at(1, 10), Some(5)), Verdict::Fresh);
}

/// The node may have died with an asset's first events before any of them was read.
#[test]
fn what_an_interruption_has_taken_of_an_asset_never_seen_is_a_possible_gap() {
    let mut positions = Positions::default();
    positions.interrupted();
    let up_to = |last| Verdict::AfterPossibleGap { first: 0, last };
    assert_eq!(positions.accept("a", &at(0, 50), Some(40)), up_to(40));
    assert_eq!(positions.accept("b", &at(0, 60), None), up_to(59));
    assert_eq!(positions.accept("c", &at(1, 0), None), Verdict::Fresh);
    assert_eq!(positions.accept("a", &at(0, 61), Some(50)), Verdict::Fresh);
}

#[test]
fn a_later_previous_offset_shows_exactly_what_was_missed() {
    let mut positions = Positions::default();
    positions.accept("a", &at(0, 50), None);
    let gap = Verdict::AfterGap {
        first: 51,
        last: 60,
    };
    assert_eq!(positions.accept("a", &at(0, 70), Some(60)), gap);
    assert_eq!(positions.accept("a", &at(0, 80), Some(70)), Verdict::Fresh);
}

#[test]
fn without_previous_offset_only_an_interruption_makes_a_possible_gap() {
    let mut positions = Positions::default();
    positions.accept("a", &at(0, 50), None);
    assert_eq!(positions.accept("a", &at(0, 70), None), Verdict::Fresh);
    positions.interrupted();
    let possible = Verdict::AfterPossibleGap {
        first: 71,
        last: 89,
    };
    assert_eq!(positions.accept("a", &at(0, 90), None), possible);
    assert_eq!(positions.accept("a", &at(0, 99), None), Verdict::Fresh);
    positions.interrupted();
    assert_eq!(positions.accept("a", &at(0, 100), None), Verdict::Fresh);
}

#[test]
fn where_a_partition_is_complete_an_asset_that_was_never_seen_can_be_missed_too() {
    let mut positions = Positions::default();
    positions.complete("t", 0, 50, 0);
    let gap = Verdict::AfterGap {
        first: 50,
        last: 60,
    };
    assert_eq!(positions.judge("a", &at(0, 70), Some(60)), gap);
    assert_eq!(positions.judge("a", &at(0, 70), Some(49)), Verdict::Fresh);
    assert_eq!(positions.judge("a", &at(0, 70), None), Verdict::Fresh);
    positions.interrupted();
    let possible = Verdict::AfterPossibleGap {
        first: 50,
        last: 69,
    };
    assert_eq!(positions.judge("a", &at(0, 70), None), possible);
    assert!(positions.is_settled("a", &at(0, 50), None));
    positions.complete("t", 0, 70, 1);
    assert!(positions.is_settled("a", &at(0, 70), None));
    assert_eq!(positions.judge("a", &at(0, 80), None), Verdict::Fresh);
}

#[test]
fn what_lies_before_the_beginning_is_not_wanted() {
    let mut positions = Positions::default();
    positions.begin("t", 0, 50);
    assert_eq!(positions.accept("a", &at(0, 49), None), Verdict::Stale);
    assert_eq!(positions.accept("a", &at(0, 50), None), Verdict::Fresh);
}

#[test]
fn what_was_asked_for_proves_nothing_about_the_connection() {
    let mut positions = Positions::default();
    positions.accept("a", &at(0, 5), None);
    positions.interrupted();
    assert!(positions.fill("a", &at(0, 8)));
    assert!(!positions.fill("a", &at(0, 8)));
    let possible = Verdict::AfterPossibleGap { first: 9, last: 9 };
    assert_eq!(positions.judge("a", &at(0, 10), None), possible);
}

/// Events of two assets on two partitions, each asset's offsets ascending.
fn log() -> impl Strategy<Value = Vec<(String, Cursor, Option<u64>)>> {
    proptest::collection::vec((0..2u8, 0..2u32), 1..60).prop_map(|choices| {
        let mut next = [0; 2];
        let mut last: HashMap<(u8, u32), u64> = HashMap::new();
        let event = |(asset, partition): (u8, u32)| {
            let offset = &mut next[partition as usize];
            let cursor = at(partition, *offset);
            let prev = last.insert((asset, partition), *offset);
            *offset += 1;
            (format!("asset-{asset}"), cursor, prev)
        };
        choices.into_iter().map(event).collect()
    })
}

proptest! {
    #[test]
    fn repeats_of_any_kind_are_dropped_and_nothing_else(
        log in log(),
        rewinds in proptest::collection::vec((0..60usize, 0..60usize), 0..8),
    ) {
        let mut positions = Positions::default();
        let mut sent: Vec<usize> = Vec::new();
        let mut rewinds = rewinds.into_iter();
        for index in 0..log.len() {
            sent.push(index);
            if let Some((at, back)) = rewinds.next() && at % 3 == 0 {
                sent.extend(index.saturating_sub(back)..=index);
            }
        }
        let mut fresh = Vec::new();
        for index in sent {
            let (asset, cursor, prev) = &log[index];
            match positions.accept(asset, cursor, *prev) {
                Verdict::Fresh => fresh.push(index),
                Verdict::Stale => {}
                other => prop_assert!(false, "{other:?} though nothing is missing"),
            }
        }
        prop_assert_eq!(fresh, (0..log.len()).collect::<Vec<_>>());
    }

    #[test]
    fn every_missing_event_lies_in_an_announced_gap(log in log(), missing in proptest::collection::vec(any::<bool>(), 60)) {
        let mut positions = Positions::default();
        let mut seen: HashMap<(String, u32), u64> = HashMap::new();
        let mut owed: HashMap<(String, u32), Vec<u64>> = HashMap::new();
        for (index, (asset, cursor, prev)) in log.iter().enumerate() {
            let key = (asset.clone(), cursor.partition);
            if missing[index] {
                if seen.contains_key(&key) {
                    owed.entry(key).or_default().push(cursor.offset);
                }
                continue;
            }
            let owed = owed.remove(&key).unwrap_or_default();
            match positions.accept(asset, cursor, *prev) {
                Verdict::Fresh => prop_assert!(owed.is_empty(), "silent loss of {owed:?}"),
                Verdict::AfterGap { first, last } => {
                    prop_assert_eq!(Some(&last), owed.last());
                    prop_assert_eq!(first, seen[&key] + 1);
                }
                other => prop_assert!(false, "{other:?}"),
            }
            seen.insert(key, cursor.offset);
        }
    }
}
