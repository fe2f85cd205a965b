//! A group's service with a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Broker, EventSource, Service, produce};
use futures::StreamExt as _;
use rdkafka::producer::{FutureProducer, Producer as _};
use serde_json::json;

const TOPIC: &str = "asset_stream_Weld_topic";
const PARTITIONS: i32 = 3;
const ASSETS: [&str; 4] = ["A0", "A1", "A2", "A3"];

async fn broker() -> Broker {
    let broker = Broker::start().await;
    broker.create_topic(TOPIC, PARTITIONS).await;
    broker
}

/// Event `number` of every asset, each asset on a partition of its own or with another.
async fn produce_all(producer: &FutureProducer, numbers: std::ops::Range<usize>, padding: usize) {
    for number in numbers {
        for (index, asset) in (0..).zip(ASSETS) {
            let id = format!("{asset}/x");
            let at = (TOPIC, index % PARTITIONS);
            produce(producer, at, (asset, &id), number, padding);
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn each(count: usize) -> BTreeMap<String, usize> {
    ASSETS.map(|asset| (asset.to_owned(), count)).into()
}

fn assert_complete(client: &EventSource, assets: &[&str], numbers: std::ops::Range<usize>) {
    let expected: Vec<usize> = numbers.collect();
    for asset in assets {
        assert_eq!(client.numbers[*asset], expected, "{asset}");
    }
    assert_eq!(client.numbers.len(), assets.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_loses_nothing_for_its_clients() {
    let broker = broker().await;
    let state = tempfile::tempdir().unwrap();
    let settings = [("ASSET_GROUP", "Weld"), ("REPLAY_MEMORY_MIB", "1")];
    let mut service = Service::new("group", &broker, &settings).state_dir(state.path());
    service.start().await;
    let producer = broker.producer();

    let mut client =
        EventSource::new(service.url("/asset_stream?asset_uuid=A0,A1&asset_uuid=A2,A3"));
    assert!(client.connect().await);
    let mut one = EventSource::new(service.url("/asset_stream?asset_uuid=A1&id=A1/x"));
    assert!(one.connect().await);
    let mut nobody = EventSource::new(service.url("/asset_stream?asset_uuid=A1&id=A1/y"));
    assert!(nobody.connect().await);
    produce_all(&producer, 0..100, 0).await;
    client.receive(&each(100)).await;
    one.receive(&[("A1".to_owned(), 100)].into()).await;

    // Away for longer than memory reaches back, and killed meanwhile: read from Kafka.
    service.kill();
    produce_all(&producer, 100..1500, 300).await;
    service.start().await;
    produce_all(&producer, 1500..2600, 300).await;
    client.receive(&each(2600)).await;
    assert_complete(&client, &ASSETS, 0..2600);

    // Ended in good order in the middle of a stream.
    let (produced, ()) = tokio::join!(produce_all(&producer, 2600..3000, 0), async {
        service.terminate().await;
        service.start().await;
    });
    let () = produced;
    client.receive(&each(3000)).await;
    one.receive(&[("A1".to_owned(), 3000)].into()).await;
    assert_complete(&client, &ASSETS, 0..3000);
    assert_complete(&one, &["A1"], 0..3000);
    assert_eq!(client.gaps, [""; 0]);
    assert_eq!(nobody.counts(), BTreeMap::new());

    // What retention takes while a client is away is told, and the rest is complete.
    let (status, before) = service.get("/asset_state?asset_uuid=A3&id=A3/x").await;
    assert_eq!(status, 200, "{before}");
    assert_eq!(before["value"], "2999");
    service.kill();
    produce_all(&producer, 3000..3100, 0).await;
    // A0 and A3 share partition 0, so it has twice as many records.
    broker.delete_before(TOPIC, &[6100, 3050, 3050]).await;
    service.start().await;
    client.receive(&each(3050)).await;
    assert_eq!(
        client.gaps.len(),
        3,
        "one for each partition: {:?}",
        client.gaps
    );
    for asset in ASSETS {
        let after = &client.numbers[asset][3000..];
        assert_eq!(after, (3050..3100).collect::<Vec<_>>(), "{asset}");
    }
    answers_for_the_state(&service).await;
    an_id_of_another_stream_is_told(&service).await;
    what_is_for_another_group_is_refused(&service).await;
}

/// Kafka's client tells that the end is reached only where nothing comes for a moment; here something always comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_written_to_all_the_time_is_served_soon() {
    let broker = broker().await;
    let producer = broker.producer();
    let writing = tokio::spawn(async move {
        for number in 0.. {
            for partition in 0..PARTITIONS {
                let at = (TOPIC, partition);
                produce(&producer, at, ("A0", "A0/x"), number, 0);
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    for command in ["group", "replay"] {
        let settings = [
            ("ASSET_GROUP", "Weld"),
            ("KAFKA_TOPIC", TOPIC),
            ("NATS_CLUSTER_C1", "nats://127.0.0.1:4222"),
        ];
        let mut service = Service::new(command, &broker, &settings);
        service.start().await;
    }
    writing.abort();
}

async fn what_is_for_another_group_is_refused(service: &Service) {
    for path in ["/asset_stream?asset_uuid=A0", "/asset_state?asset_uuid=A0"] {
        let request = reqwest::Client::new().get(service.url(path));
        let answer = request.header("ofa-group", "Paint").send().await.unwrap();
        assert_eq!(answer.status(), 421, "{path}");
    }
}

async fn answers_for_the_state(service: &Service) {
    let item = json!({
        "id": "A0/x", "value": "3099", "type": "Samples", "tag": "Position",
        "timestamp": "2026-01-02T03:04:05Z",
    });
    let (status, all) = service.get("/asset_state?asset_uuid=A0").await;
    assert_eq!(
        (status, all),
        (200, json!({ "asset_uuid": "A0", "dataItems": [item] }))
    );
    let (status, nothing) = service.get("/asset_state?asset_uuid=A0&id=y").await;
    let detail = "No data found for the given asset_uuid and id.";
    assert_eq!((status, nothing), (404, json!({ "detail": detail })));
    assert_eq!(service.get("/asset_state").await.0, 400);
    assert_eq!(service.get("/asset_stream").await.0, 400);
}

async fn an_id_of_another_stream_is_told(service: &Service) {
    let url = service.url("/asset_stream?asset_uuid=A0&lastEventId=other_topic/0/7");
    let mut client = EventSource::new(url);
    assert!(client.connect().await);
    assert!(client.step().await);
    assert_eq!(client.gaps, ["the id is not one of this stream"]);
    assert!(client.last_id().starts_with(TOPIC));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_holds_nobody_back_and_misses_nothing() {
    const EVENTS: usize = 6000;
    let broker = broker().await;
    let settings = [("ASSET_GROUP", "Weld"), ("CLIENT_QUEUE_KIB", "64")];
    let mut service = Service::new("group", &broker, &settings);
    service.start().await;

    let url = service.url("/asset_stream?asset_uuid=A0");
    let mut fast = EventSource::new(url.clone());
    assert!(fast.connect().await);
    // Connected, and not read: what it does not take has to wait.
    let mut slow = EventSource::new(url);
    assert!(slow.connect().await);
    assert_eq!(service.metric("serving_streams").await, 2.0);

    let producer = broker.producer();
    let expected = [("A0".to_owned(), EVENTS)].into();
    // 18 MB: more than sockets take.
    let (_, ()) = tokio::join!(
        produce_all(&producer, 0..EVENTS, 3000),
        fast.receive(&expected)
    );
    assert_complete(&fast, &["A0"], 0..EVENTS);
    assert!(service.metric("serving_slow_clients_total").await >= 1.0);

    slow.receive(&expected).await;
    assert_complete(&slow, &["A0"], 0..EVENTS);
    assert_eq!(slow.gaps, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_for_a_while_goes_on_with_the_same_stream() {
    const EVENTS: usize = 1500;
    let broker = broker().await;
    let settings = [
        ("ASSET_GROUP", "Weld"),
        // All of it may wait, and memory has little for who catches up.
        ("CLIENT_QUEUE_KIB", "32768"),
        ("REPLAY_MEMORY_MIB", "1"),
    ];
    let mut service = Service::new("group", &broker, &settings);
    service.start().await;
    let mut client = EventSource::new(service.url("/asset_stream?asset_uuid=A0"));
    assert!(client.connect().await);

    let producer = broker.producer();
    // 4.5 MB: more than sockets take.
    produce_all(&producer, 0..EVENTS, 3000).await;
    let mut written = EVENTS;
    while service.metric("serving_slow_clients_total").await < 1.0 {
        produce_all(&producer, written..written + 1, 3000).await;
        written += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    produce_all(&producer, written..written + EVENTS, 3000).await;
    written += EVENTS;

    while client.counts().get("A0") != Some(&written) {
        assert!(client.step().await, "the stream ended");
    }
    assert_complete(&client, &["A0"], 0..written);
    assert_eq!(client.gaps, [""; 0]);
    // It gets what comes as before.
    produce_all(&producer, written..written + 1, 0).await;
    assert!(client.step().await);
    assert_complete(&client, &["A0"], 0..written + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_topic_is_there_clients_are_told_to_come_back() {
    let broker = broker().await;
    let mut service = Service::new("group", &broker, &[("ASSET_GROUP", "Paint")]);
    service.spawn();
    while reqwest::get(service.url("/health")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let url = service.url("/asset_stream?asset_uuid=A0");
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    let (status, ready) = service.get("/ready").await;
    assert_eq!(status, 503);
    assert!(ready["issues"]["stream"].is_string(), "{ready}");

    broker.create_topic("asset_stream_Paint_topic", 1).await;
    service.ready().await;
    let answer = reqwest::get(&url).await.unwrap();
    let first = answer.bytes_stream().next().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    assert!(
        first.starts_with("retry: ") && first.ends_with("id: asset_stream_Paint_topic\n\n"),
        "{first}"
    );
}
