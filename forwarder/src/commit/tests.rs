use proptest::prelude::*;

use super::*;

const A: SinkId = SinkId(0);
const B: SinkId = SinkId(1);

fn span(tracker: &Tracker, partition: i32, first: i64, last: i64) -> Span {
    Span {
        partition,
        tenure: tracker.tenure(partition).unwrap(),
        first,
        last,
    }
}

/// The offsets that would be committed now.
fn offsets(tracker: &Tracker) -> Vec<(i32, i64)> {
    tracker
        .uncommitted(&tracker.partitions())
        .into_iter()
        .map(|(id, position)| (id, position.offset))
        .collect()
}

fn confirm(tracker: &mut Tracker, sink: SinkId, span: Span) {
    tracker.confirmed(&Confirmed {
        sink,
        spans: vec![span],
    });
}

#[test]
fn the_watermark_is_the_smallest_unconfirmed_offset_over_all_sinks() {
    let mut tracker = Tracker::default();
    tracker.assign(0);
    (10..20).for_each(|offset| tracker.taken(0, offset));
    let (a, b) = (span(&tracker, 0, 10, 18), span(&tracker, 0, 12, 19));
    tracker.handed_over(A, &[a]);
    tracker.handed_over(B, &[b]);
    assert_eq!(offsets(&tracker), [(0, 10)]);
    confirm(&mut tracker, A, a);
    assert_eq!(offsets(&tracker), [(0, 12)]);
    confirm(&mut tracker, B, b);
    assert_eq!(offsets(&tracker), [(0, 20)]);
    let positions = tracker.uncommitted(&[0]);
    tracker.note_committed(positions);
    assert_eq!(offsets(&tracker), []);
}

#[test]
fn records_that_go_nowhere_are_committed_too() {
    let mut tracker = Tracker::default();
    tracker.assign(0);
    assert_eq!(
        offsets(&tracker),
        [],
        "nothing is known of a partition before its first record"
    );
    tracker.taken(0, 41);
    assert_eq!(offsets(&tracker), [(0, 42)]);
}

#[test]
fn a_confirmation_from_an_earlier_tenure_counts_for_nothing() {
    let mut tracker = Tracker::default();
    tracker.assign(0);
    tracker.taken(0, 5);
    let old = span(&tracker, 0, 5, 5);
    tracker.handed_over(A, &[old]);
    tracker.remove(0);
    tracker.assign(0);
    tracker.taken(0, 5);
    let new = span(&tracker, 0, 5, 5);
    tracker.handed_over(A, &[new]);
    confirm(&mut tracker, A, old);
    assert!(!tracker.is_confirmed(&[0]));
    confirm(&mut tracker, A, new);
    assert!(tracker.is_confirmed(&[0]));
}

#[test]
fn a_draining_partition_takes_nothing_more() {
    let mut tracker = Tracker::default();
    tracker.assign(0);
    tracker.drain(0);
    assert_eq!(tracker.tenure(0), None);
    assert_eq!(tracker.partitions(), [0]);
}

#[test]
fn a_sink_behind_holds_the_offset_and_the_metadata_tells_where_the_others_are() {
    let mut tracker = Tracker::default();
    tracker.assign(0);
    (10..20).for_each(|offset| tracker.taken(0, offset));
    let (a, b) = (span(&tracker, 0, 10, 13), span(&tracker, 0, 11, 19));
    tracker.handed_over(A, &[a]);
    tracker.handed_over(B, &[b]);
    tracker.fall_behind(0, A, 15);
    tracker.fall_behind(0, A, 17);
    let position = |tracker: &Tracker| tracker.uncommitted(&[0])[0].1.clone();
    let expected = |offset, head, behind| CommittedPosition {
        offset,
        head,
        behind: BTreeMap::from([(A, behind)]),
    };
    assert_eq!(position(&tracker), expected(10, 11, 10));
    confirm(&mut tracker, B, b);
    assert_eq!(position(&tracker), expected(10, 20, 10));
    confirm(&mut tracker, A, a);
    assert_eq!(position(&tracker), expected(15, 20, 15));
    assert!(!tracker.catch_up(0, A, 18));
    assert_eq!(position(&tracker), expected(18, 20, 18));
    assert!(tracker.catch_up(0, A, 20));
    assert_eq!(
        position(&tracker),
        CommittedPosition {
            offset: 20,
            head: 20,
            behind: BTreeMap::new()
        }
    );
}

proptest! {
    /// Each record goes to one of three sinks or nowhere, sinks confirm at their own pace: never is an
    /// offset committed that some sink has not confirmed, and in the end all of them are.
    #[test]
    fn nothing_unconfirmed_is_ever_committed(
        routes in proptest::collection::vec(0u32..4, 1..60),
        paces in proptest::collection::vec(0u32..4, 1..200),
        batch in 1usize..6,
    ) {
        let mut tracker = Tracker::default();
        tracker.assign(0);
        let mut queues: Vec<VecDeque<(Span, Vec<i64>)>> = vec![VecDeque::new(); 3];
        let mut unconfirmed = std::collections::BTreeSet::new();
        let mut paces = paces.into_iter().cycle();
        for (chunk, routes) in routes.chunks(batch).enumerate() {
            let mut batches: Vec<Vec<i64>> = vec![vec![]; 3];
            for (at, route) in routes.iter().enumerate() {
                let offset = (chunk * batch + at) as i64;
                tracker.taken(0, offset);
                if let Some(batch) = batches.get_mut(*route as usize) {
                    batch.push(offset);
                    unconfirmed.insert(offset);
                }
            }
            for (sink, offsets) in batches.into_iter().enumerate().filter(|(_, offsets)| !offsets.is_empty()) {
                let span = span(&tracker, 0, offsets[0], offsets[offsets.len() - 1]);
                tracker.handed_over(SinkId(sink.try_into().unwrap()), &[span]);
                queues[sink].push_back((span, offsets));
            }
            let sink = paces.next().unwrap();
            if let Some((span, offsets)) = queues.get_mut(sink as usize).and_then(VecDeque::pop_front) {
                confirm(&mut tracker, SinkId(sink), span);
                offsets.iter().for_each(|offset| { unconfirmed.remove(offset); });
            }
            let committed = offsets(&tracker);
            prop_assert!(unconfirmed.first().is_none_or(|oldest| committed[0].1 <= *oldest));
        }
        for (sink, queue) in queues.into_iter().enumerate() {
            queue.into_iter().for_each(|(span, _)| confirm(&mut tracker, SinkId(sink.try_into().unwrap()), span));
        }
        prop_assert!(tracker.is_confirmed(&[0]));
        prop_assert_eq!(offsets(&tracker), [(0, routes.len() as i64)]);
    }
}
