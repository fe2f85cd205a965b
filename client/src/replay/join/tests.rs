use std::sync::Arc;

use reqwest::StatusCode;

use super::*;
use crate::replay::ReplayError;

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

/// The service has too much to do.
fn busy() -> Part {
    Part::Failed(Arc::new(ReplayError::Refused {
        url: String::new(),
        status: StatusCode::SERVICE_UNAVAILABLE,
        detail: String::new(),
    }))
}

/// A subscription that begins at offset 5.
fn begun(scope: Scope, now: Instant) -> Join {
    let mut join = Join::new(scope, CHECK_INTERVAL);
    join.begin("t", [(0, 5)].into(), true, now);
    join
}

/// How long an event waits for what is missing before it, and what comes out then, where questions are answered like this.
fn waits_for(answer: impl Fn() -> Vec<Part>) -> (Duration, Vec<Item>) {
    let (begin, mut out) = (Instant::now(), Vec::new());
    let mut join = begun(Scope::Asset("A".into()), begin);
    join.live(event(9, Some(7)), Origin::Current, (begin, begin), &mut out);
    let mut now = begin;
    while out.is_empty() {
        now += STEP;
        if join.tick(now, &mut out).is_some() {
            for part in answer() {
                join.part(part, now, &mut out);
            }
        }
        assert!(now < begin + LONG_PATIENCE * 2, "waits for ever");
    }
    (now - begin, out)
}

fn heads() -> Part {
    Part::Heads {
        topic: "t".into(),
        next: [(0, 10)].into(),
    }
}

#[test]
fn while_nobody_answers_events_wait_and_then_go_out_with_the_gap_named() {
    let (waited, out) = waits_for(|| vec![failed()]);
    assert!(
        (PATIENCE..PATIENCE + STEP * 2).contains(&waited),
        "{waited:?}"
    );
    let [Item::Gap(gap), Item::Event(_)] = &out[..] else {
        panic!("{out:?}");
    };
    let Extent::Possible { first, last, .. } = gap.extent else {
        panic!("{gap}");
    };
    assert_eq!((first, last), (0, 7));
}

#[test]
fn a_service_that_is_there_is_waited_for_longer_though_not_for_ever() {
    for answer in [|| vec![busy()], || vec![heads(), failed()]] {
        let (waited, out) = waits_for(answer);
        let long = LONG_PATIENCE..LONG_PATIENCE + STEP * 2;
        assert!(long.contains(&waited), "{waited:?}");
        // The event was let go meanwhile, to be asked for.
        assert!(matches!(out[..], [Item::Gap(_)]), "{out:?}");
    }
}

/// How often is asked within two seconds, where all is answered at once.
fn questions(join: &mut Join, mut now: Instant) -> usize {
    let (ends, mut asked, mut out) = (now + Duration::from_secs(2), 0, Vec::new());
    while now < ends {
        if join.tick(now, &mut out).is_some() {
            asked += 1;
            join.part(heads(), now, &mut out);
            join.part(Part::End, now, &mut out);
        }
        now += STEP;
    }
    asked
}

#[test]
fn a_connection_is_asked_after_until_all_nodes_know_it_and_a_move_once_at_its_end() {
    let mut now = Instant::now();
    let mut join = begun(Scope::Asset("A".into()), now);
    assert_eq!(questions(&mut join, now), 1 + AGAIN.len());
    now += Duration::from_secs(3);
    join.sequencer.begin_move();
    assert_eq!(questions(&mut join, now), 0);
    now += Duration::from_secs(3);
    join.end_move(true, now, &mut Vec::new());
    assert_eq!(questions(&mut join, now), 1);
}

#[test]
fn what_was_looked_through_in_vain_is_not_asked_for_again() {
    let (mut now, mut out) = (Instant::now(), Vec::new());
    let mut join = begun(Scope::Asset("A".into()), now);
    join.live(event(90, Some(80)), Origin::Current, (now, now), &mut out);
    let begin = now;
    for (next, since) in (10..80).zip(std::iter::once(5).chain(10..)) {
        let question = loop {
            now += PATIENCE / 2;
            if let Some(question) = join.tick(now, &mut out) {
                break question;
            }
        };
        assert_eq!(question.since[&0], since);
        for next in [next, next - 3] {
            join.part(Part::Reached { partition: 0, next }, now, &mut out);
        }
        join.part(failed(), now, &mut out);
    }
    assert!(now > begin + LONG_PATIENCE);
    assert!(out.is_empty(), "gets on, so nothing is given up: {out:?}");
}

#[test]
fn what_waits_does_not_grow_with_the_patience() {
    let (mut now, mut out) = (Instant::now(), Vec::new());
    let mut join = begun(Scope::Asset("A".into()), now);
    for second in 0..200 {
        now += Duration::from_secs(1);
        let offset = 90 + second;
        let live = event(offset, Some(offset - 1));
        join.live(live, Origin::Current, (now, now), &mut out);
        if join.tick(now, &mut out).is_some() {
            join.part(busy(), now, &mut out);
        }
    }
    assert!(out.is_empty() && join.sequencer.held() <= 31);
    let question = loop {
        now += STEP;
        if let Some(question) = join.tick(now, &mut out) {
            break question;
        }
    };
    assert_eq!(question.since[&0], 5, "what was let go is asked for");
}

#[test]
fn what_came_before_anybody_answered_is_not_taken_for_all_there_was() {
    let (mut now, mut out) = (Instant::now(), Vec::new());
    let mut join = Join::new(Scope::Asset("A".into()), CHECK_INTERVAL);
    join.begin_later(now);
    join.live(event(7, None), Origin::Current, (now, now), &mut out);
    join.connected(now);
    let mut asked = Vec::new();
    while asked.len() < 2 {
        now += STEP;
        if let Some(question) = join.tick(now, &mut out) {
            asked.push((question.since, question.from));
            join.part(heads(), now, &mut out);
            join.part(Part::End, now, &mut out);
        }
    }
    assert_eq!(
        asked,
        [([].into(), [].into()), ([(0, 8)].into(), [].into())]
    );
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
