use super::*;

const STEP: Duration = Duration::from_millis(50);

fn event(offset: u64, prev: Option<u64>) -> Event {
    Event {
        prev,
        ..Event::of("A", 0, offset)
    }
}

fn failed() -> Part {
    Part::Failed(Arc::new(ReplayError::None))
}

/// A subscription that begins at offset 5.
fn begun(scope: Scope, now: Instant) -> Join {
    let mut join = Join::new(scope, CHECK_INTERVAL);
    join.begin("t", [(0, 5)].into(), true, now);
    join
}

#[test]
fn while_nobody_answers_events_wait_and_then_go_out_with_the_gap_named() {
    let (begin, mut out) = (Instant::now(), Vec::new());
    let mut join = begun(Scope::Asset("A".into()), begin);
    join.live(event(9, Some(7)), Origin::Current, (begin, begin), &mut out);
    let mut now = begin;
    while out.is_empty() {
        now += STEP;
        if join.tick(now, &mut out).is_some() {
            join.part(failed(), now, &mut out);
        }
        assert!(now < begin + PATIENCE * 2, "waits for ever");
    }
    assert!(now >= begin + PATIENCE);
    let [Item::Gap(gap), Item::Event(_)] = &out[..] else {
        panic!("{out:?}");
    };
    let Extent::Possible { first, last, .. } = gap.extent else {
        panic!("{gap}");
    };
    assert_eq!((first, last), (0, 7));
}

#[test]
fn answers_that_break_off_are_gone_on_with() {
    let (mut now, mut out) = (Instant::now(), Vec::new());
    let mut join = begun(Scope::Shard("C1".into()), now);
    // Waits for what is missing before it.
    join.live(event(90, Some(80)), Origin::Current, (now, now), &mut out);
    for from in [5, 15, 25, 35] {
        let question = loop {
            now += STEP;
            if let Some(question) = join.tick(now, &mut out) {
                break question;
            }
        };
        assert_eq!(question.since, [(0, from)].into());
        let heads = Part::Heads {
            topic: "t".into(),
            next: [(0, 91)].into(),
        };
        join.part(heads, now, &mut out);
        for offset in (from + from % 2..).step_by(2).take(5) {
            join.part(Part::Event(event(offset, None)), now, &mut out);
        }
        join.part(failed(), now, &mut out);
    }
    let events = out.iter().filter(|item| matches!(item, Item::Event(_)));
    assert_eq!((events.count(), out.len()), (20, 20));
}
