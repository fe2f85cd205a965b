//! The replay service with a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Broker, Service, produce};
use ofa_crds::replay::{
    AssetAsk, ReplayAsk, ReplayDecoder, ReplayEvent, ReplayLine, ReplayRequest,
};
use rdkafka::producer::Producer as _;
use serde_json::Value;

const TOPIC: &str = "ofa_assets";
const PARTITIONS: i32 = 2;
const EVENTS: usize = 4_000;

/// What an answer said.
#[derive(Debug, Default)]
struct Answer {
    heads: BTreeMap<u32, u64>,
    gaps: Vec<(Option<String>, u64, u64)>,
    state: Vec<ReplayEvent>,
    events: Vec<(ReplayEvent, Value)>,
    reached: BTreeMap<u32, u64>,
    is_complete: bool,
}

fn ask(assets: &[&str], since: &[(u32, u64)]) -> ReplayRequest {
    let assets = assets.iter().map(|asset| AssetAsk {
        asset: (*asset).to_owned(),
        from: BTreeMap::new(),
    });
    let ask = ReplayAsk {
        since: since.iter().copied().collect(),
        shard: None,
        assets: assets.collect(),
    };
    ReplayRequest { asks: vec![ask] }
}

async fn replay(service: &Service, request: &ReplayRequest) -> Answer {
    let client = reqwest::Client::new();
    let answer = client.post(service.url("/replay")).json(request).send();
    let answer = answer.await.unwrap().error_for_status().unwrap();
    let mut decoder = ReplayDecoder::default();
    decoder.push(&answer.bytes().await.unwrap());
    let mut found = Answer::default();
    while let Some((line, payload)) = decoder.next_line().unwrap() {
        match line {
            ReplayLine::Heads { topic, next } => {
                assert_eq!(topic, TOPIC);
                found.heads = next;
            }
            ReplayLine::Gap {
                asset, first, last, ..
            } => found.gaps.push((asset, first, last)),
            ReplayLine::State(event) => found.state.push(event),
            ReplayLine::Event(event) => {
                let payload = serde_json::from_slice(&payload).unwrap();
                found.events.push((event, payload));
            }
            ReplayLine::Reached { partition, next } => {
                let before = found.reached.insert(partition, next);
                assert!(
                    before.is_none_or(|before| before < next),
                    "{before:?} {next}"
                );
            }
            ReplayLine::End => found.is_complete = true,
        }
    }
    found
}

/// Event by event, two assets on one partition and one on another.
async fn scene() -> (Broker, Service) {
    let broker = Broker::start().await;
    broker.create_topic(TOPIC, PARTITIONS).await;
    let producer = broker.producer();
    for number in 0..EVENTS {
        // Large enough that memory holds only the last of them.
        produce(
            &producer,
            (TOPIC, 0),
            ("A", ["x", "y"][number % 2]),
            number,
            500,
        );
        produce(&producer, (TOPIC, 0), ("B", "x"), number, 500);
        produce(&producer, (TOPIC, 1), ("C", "x"), number, 10);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let settings = [
        ("REPLAY_MEMORY_MIB", "1"),
        ("NATS_CLUSTER_C1", "nats://127.0.0.1:4222"),
    ];
    let mut service = Service::new("replay", &broker, &settings);
    service.start().await;
    (broker, service)
}

fn numbers(answer: &Answer, asset: &str) -> Vec<u64> {
    let of_asset = answer
        .events
        .iter()
        .filter(|(event, _)| event.asset == asset);
    of_asset
        .map(|(_, payload)| payload["VALUE"].as_u64().unwrap())
        .collect()
}

fn all() -> Vec<u64> {
    (0..EVENTS as u64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_comes_from_memory_and_from_kafka_and_ends_where_the_topic_does() {
    let (broker, service) = scene().await;
    let answer = replay(&service, &ask(&["A"], &[(0, 0), (1, 0)])).await;
    assert!(answer.is_complete);
    assert_eq!(
        answer.heads,
        [(0, 2 * EVENTS as u64), (1, EVENTS as u64)].into()
    );
    assert_eq!(numbers(&answer, "A"), all());
    assert_eq!(answer.events.len(), EVENTS);
    let (event, payload) = &answer.events[0];
    assert_eq!((event.partition, event.offset, &*event.id), (0, 0, "x"));
    assert!(payload.get("ID").is_none());
    assert_eq!(payload["attributes"]["kafka_timestamp_type"], "producer");
    assert!(
        service
            .metric("serving_replayed_events_total{source=\"Memory\"}")
            .await
            > 0.0
    );
    assert!(
        service
            .metric("serving_replayed_events_total{source=\"Kafka\"}")
            .await
            > 0.0
    );

    // Written a moment ago: the answer waits until it is read.
    let producer = broker.producer();
    produce(&producer, (TOPIC, 1), ("C", "x"), EVENTS, 10);
    producer.flush(Duration::from_secs(60)).unwrap();
    let head = answer.heads[&1];
    let answer = replay(&service, &ask(&["C"], &[(0, 0), (1, head)])).await;
    assert_eq!(numbers(&answer, "C"), [EVENTS as u64]);

    // What was looked through in Kafka in vain is told too.
    let answer = replay(&service, &ask(&["C"], &[(0, 0), (1, head)])).await;
    assert!(answer.reached[&0] > 0 && !answer.reached.contains_key(&1));

    // Nothing is asked for: only where the topic ends.
    let answer = replay(&service, &ask(&["A"], &[])).await;
    assert!(answer.is_complete && answer.events.is_empty());
    assert_eq!(answer.heads[&1], head + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_get_everything_and_so_does_a_whole_shard() {
    let (_broker, service) = scene().await;
    let one = ask(&["A", "C"], &[(0, 0), (1, 0)]);
    let answers = futures::future::join_all((0..40).map(|_| replay(&service, &one))).await;
    for answer in &answers {
        assert!(answer.is_complete);
        assert_eq!(numbers(answer, "A"), all());
        assert_eq!(numbers(answer, "C"), all());
    }
    let mut shard = ask(&[], &[(0, 10), (1, 0)]);
    shard.asks[0].shard = Some("C1".to_owned());
    let answer = replay(&service, &shard).await;
    assert_eq!(answer.events.len(), 3 * EVENTS - 10);

    shard.asks[0].shard = Some("C9".to_owned());
    let client = reqwest::Client::new();
    let refused = client.post(service.url("/replay")).json(&shard).send();
    assert_eq!(refused.await.unwrap().status(), 404);
    let garbage = client
        .post(service.url("/replay"))
        .body("{\"asks\":[{\"since\":7}]}")
        .send();
    assert_eq!(garbage.await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_a_gap_with_the_state_and_never_silence() {
    let (broker, service) = scene().await;
    broker.delete_before(TOPIC, &[1000, 0]).await;
    let answer = replay(&service, &ask(&["A", "C"], &[(0, 10), (1, 5)])).await;
    assert!(answer.is_complete);
    // Nobody can tell whether C had events there.
    let gap = |asset: &str| (Some(asset.to_owned()), 10, 999);
    assert_eq!(answer.gaps, [gap("A"), gap("C")]);
    let end = 2 * EVENTS as u64;
    let state: Vec<(&str, u64)> = answer
        .state
        .iter()
        .map(|event| (&*event.id, event.offset))
        .collect();
    assert_eq!(state, [("x", end - 4), ("y", end - 2)]);
    assert_eq!(
        numbers(&answer, "A"),
        (500..EVENTS as u64).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&answer, "C"),
        (5..EVENTS as u64).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_on_two_partitions_is_counted() {
    let (broker, service) = scene().await;
    let metric = "serving_assets_on_two_partitions";
    assert!(service.metric(metric).await < 1.0);
    let producer = broker.producer();
    produce(&producer, (TOPIC, 0), ("C", "x"), EVENTS, 10);
    producer.flush(Duration::from_secs(60)).unwrap();
    let deadline = tokio::time::Instant::now() + common::PATIENCE;
    while service.metric(metric).await < 1.0 {
        assert!(tokio::time::Instant::now() < deadline, "it is not noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
