use proptest::prelude::*;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::*;

/// Even events of an asset, or of all.
#[derive(Debug)]
struct Even(Option<&'static str>);

impl Wanted for Even {
    type Item = u64;

    fn assets(&self) -> Option<Vec<Arc<str>>> {
        self.0.map(|asset| vec![asset.into()])
    }

    fn wants_asset(&self, _: &str) -> bool {
        true
    }

    fn read(_: &str, record: &BorrowedMessage<'_>) -> Option<u64> {
        u64::try_from(record.offset()).ok()
    }

    fn wants(&self, item: &u64) -> bool {
        item.is_multiple_of(2)
    }

    fn size(_: &u64) -> usize {
        100
    }
}

type Reply = oneshot::Receiver<Page<u64>>;

fn request(asset: Option<&'static str>, from: u64, to: u64) -> (Request<Even>, Reply) {
    let (reply, page) = oneshot::channel();
    let range = Range {
        topic: "t".into(),
        partition: 0,
        from,
        to,
        wanted: Arc::new(Even(asset)),
    };
    (Request::new(range, reply), page)
}

fn read(pass: &mut Pass<Even>, offset: u64, asset: &str) {
    pass.take(offset, Some(asset), |_| Some(offset));
}

/// Offsets of the events, and where the next page begins.
fn page(reply: &mut Reply) -> (Vec<u64>, u64) {
    let page = reply.try_recv().unwrap();
    (page.items.iter().map(|item| **item).collect(), page.next)
}

#[test]
fn a_page_has_what_was_asked_for_and_no_more() {
    let (a, mut of_a) = request(Some("A"), 2, 6);
    let (b, mut of_b) = request(Some("B"), 2, 9);
    let (all, mut of_all) = request(None, 3, 8);
    let mut passes = passes(vec![a, b, all], 0);
    assert_eq!((passes.len(), passes[0].from()), (1, 2));
    let pass = &mut passes[0];
    for offset in [0, 2, 3, 4] {
        read(pass, offset, "A");
    }
    assert!(of_a.try_recv().is_err(), "5 may follow");
    read(pass, 6, "B");
    assert_eq!(page(&mut of_a), (vec![2, 4], 6));
    read(pass, 12, "A");
    assert_eq!(page(&mut of_b), (vec![6], 9));
    assert_eq!(page(&mut of_all), (vec![4, 6], 8));
    assert!(pass.is_done());
}

#[test]
fn what_retention_took_is_told() {
    let (part, mut of_part) = request(Some("A"), 2, 6);
    let (whole, mut of_whole) = request(Some("A"), 2, 4);
    let mut passes = passes(vec![part, whole], 4);
    let gone = of_whole.try_recv().unwrap();
    assert_eq!((gone.lost, gone.next), (Some(4), 4));
    read(&mut passes[0], 4, "A");
    passes[0].at_the_end(9);
    let rest = of_part.try_recv().unwrap();
    assert_eq!((rest.lost, rest.next), (Some(4), 6));
    assert_eq!(rest.items.len(), 1);
}

#[test]
fn a_page_is_bounded_and_the_next_one_goes_on() {
    let (large, mut of_large) = request(Some("A"), 0, 1_000_000);
    let mut passes = passes(vec![large], 0);
    let mut offset = 0;
    while !passes[0].is_done() {
        read(&mut passes[0], offset, "A");
        offset += 1;
    }
    let (events, next) = page(&mut of_large);
    assert_eq!(next, offset);
    assert_eq!(events.len(), PAGE_BYTES / 100 + 1);
}

#[test]
fn a_page_without_a_find_ends_too() {
    let (rare, mut of_rare) = request(Some("A"), 5, u64::MAX);
    let mut passes = passes(vec![rare], 0);
    for offset in [5, 4 + PAGE_OFFSETS] {
        assert!(of_rare.try_recv().is_err());
        passes[0].take(offset, None, |_| None);
    }
    assert_eq!(page(&mut of_rare), (vec![], 5 + PAGE_OFFSETS));
}

#[test]
fn a_hole_is_passed_over_in_one_go() {
    let (rare, mut of_rare) = request(Some("A"), 5, u64::MAX);
    let mut passes = passes(vec![rare], 0);
    passes[0].take(PAGE_OFFSETS * 1000, None, |_| None);
    assert_eq!(page(&mut of_rare), (vec![], PAGE_OFFSETS * 1000));
}

#[test]
fn a_broker_that_does_not_have_it_all_yet_is_no_end() {
    let (whole, mut of_whole) = request(Some("A"), 2, 6);
    let (more, mut of_more) = request(Some("A"), 2, 7);
    let mut passes = passes(vec![whole, more], 0);
    passes[0].at_the_end(6);
    assert_eq!(page(&mut of_whole), (vec![], 6));
    assert!(of_more.try_recv().is_err() && passes[0].is_done());
}

#[test]
fn what_lies_far_apart_is_not_read_in_one_go() {
    let from = [0, 50, 2 * GAP, 9 * GAP];
    let (requests, replies): (Vec<_>, Vec<_>) = from
        .into_iter()
        .map(|from| request(Some("A"), from, from + GAP))
        .unzip();
    let mut passes = passes(requests, 0);
    let begins: Vec<u64> = passes.iter().map(Pass::from).collect();
    assert_eq!(begins, [0, 9 * GAP]);
    drop(replies);
    for pass in &mut passes {
        assert!(!pass.is_done());
        pass.forget_who_is_gone();
        assert!(pass.is_done(), "nobody waits any more");
    }
}

proptest! {
    /// Whoever asks beside, everybody gets what he would have got alone.
    #[test]
    fn nobody_changes_what_another_gets(
        asks in proptest::collection::vec((prop_oneof![Just(None), Just(Some("A")), Just(Some("B"))], 0u64..40, 0u64..40), 1..6),
        low in 0u64..10,
        log in proptest::collection::vec(prop_oneof![Just("A"), Just("B")], 50),
    ) {
        let answers = |asks: &[(Option<&'static str>, u64, u64)]| {
            let (requests, mut replies): (Vec<_>, Vec<_>) =
                asks.iter().map(|(asset, from, length)| request(*asset, *from, from + length)).unzip();
            for mut pass in passes(requests, low) {
                for (offset, asset) in (0..).zip(&log).skip(usize::try_from(pass.from()).unwrap()) {
                    read(&mut pass, offset, asset);
                }
                pass.at_the_end(80);
            }
            replies.iter_mut().map(page).collect::<Vec<_>>()
        };
        let together = answers(&asks);
        for (ask, together) in asks.iter().zip(together) {
            prop_assert_eq!(answers(&[*ask]), vec![together]);
        }
    }
}
