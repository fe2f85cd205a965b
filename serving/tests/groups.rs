//! The routing layer of groups: over a stand-in for a group's service, and over the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use bytes::Bytes;
use common::{Broker, EventSource, Service, produce};
use futures::StreamExt as _;
use ofa_crds::control::StreamReader;
use ofa_crds::{GroupName, UnsLevel};
use ofa_serving::http;
use ofa_serving::metrics::Metrics;
use ofa_serving::router::groups::{Directory, GroupRegistry, Groups, Proxy};
use ofa_serving::router::{About, Access, Lags, Routing, app_with};
use parking_lot::RwLock;
use parts::body_of;
use rdkafka::producer::{FutureRecord, Producer as _};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A body whose parts a test sends one by one.
mod parts {
    use super::{Body, Bytes, mpsc};

    pub(super) fn body_of(receiver: mpsc::Receiver<Bytes>) -> Body {
        Body::from_stream(futures::stream::unfold(receiver, |mut receiver| async {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
        }))
    }
}

struct OneService(Url);

/// What ksqlDB calls the consumer group of a query.
const QUERY: &str = "_confluent-ksql-ofa_query_CSAS_ASSET_STREAM_WELD_5";

impl GroupRegistry for OneService {
    fn service(&self, group: &GroupName) -> Option<Url> {
        (group.as_str() != "Sleeping").then(|| self.0.clone())
    }

    fn reader(&self, group: &GroupName) -> Option<StreamReader> {
        (group.as_str() == "Weld").then(|| StreamReader {
            consumer_group: QUERY.to_owned(),
            topic: "ofa_assets".to_owned(),
        })
    }

    fn groups(&self) -> Vec<GroupName> {
        vec!["Halle 3/Süd".parse().unwrap()]
    }
}

fn directory(caught_up: bool) -> Directory {
    let mut directory = Directory::new(UnsLevel::every_value("workcenter"));
    for (asset, workcenter) in [
        ("CNC-1", "Weld"),
        ("CNC-2", "Weld"),
        ("P", "Paint"),
        ("Z", "Sleeping"),
    ] {
        let entry = [("workcenter", workcenter)].into_iter().collect();
        directory.apply(asset, Some(&entry)).unwrap();
    }
    directory.apply("loose", Some(&Default::default())).unwrap();
    if caught_up {
        directory.set_caught_up();
    }
    directory
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(http::serve(listener, app, std::future::pending()));
    url
}

async fn router(service: &str, caught_up: bool) -> String {
    let directory = Arc::new(RwLock::new(directory(caught_up)));
    router_of(service, directory, watch::channel(0).1).await
}

async fn router_of(
    service: &str,
    directory: Arc<RwLock<Directory>>,
    news: watch::Receiver<u64>,
) -> String {
    router_with(service, directory, news, None).await
}

async fn router_with(
    service: &str,
    directory: Arc<RwLock<Directory>>,
    news: watch::Receiver<u64>,
    lags: Option<Lags>,
) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let groups = Groups {
        directory,
        registry: Arc::new(OneService(service.parse().unwrap())),
        proxy: Proxy::new(CancellationToken::new()).unwrap(),
        news,
        lags,
    };
    let (_, routing) = watch::channel(Routing::Unknown("no map".to_owned()));
    serve(app_with(
        routing,
        Arc::new(Metrics::new("router")),
        Some(groups),
        About::default(),
        &Access::default(),
    ))
    .await
}

async fn answer(url: &str) -> (u16, Value) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_stream_passes_byte_by_byte_as_it_comes() {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Arc::new(parking_lot::Mutex::new(Some(receiver)));
    let service = get(async move || {
        let body = body_of(receiver.lock().take().unwrap());
        ([(header::CONTENT_TYPE, "text/event-stream")], body)
    });
    let service = serve(Router::new().route("/asset_stream", service)).await;
    let router = router(&service, true).await;
    let url = format!("{router}/asset_stream?asset_uuid=CNC-1,CNC-2");
    let stream = reqwest::get(url).await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut stream = stream.bytes_stream();
    for part in [
        "retry: 5\n\n",
        "event: asset_update\ndata: {}\n",
        "\n",
        ": ping\n\n",
    ] {
        sender.send(Bytes::from(part)).await.unwrap();
        // Each before the next is sent: nothing is held back.
        assert_eq!(stream.next().await.unwrap().unwrap(), part);
    }
    drop(sender);
    assert!(stream.next().await.is_none());
}

/// Otherwise its client would listen where no event of it is written any more.
#[tokio::test]
async fn a_stream_ends_when_its_asset_moves_to_another_group() {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Arc::new(parking_lot::Mutex::new(Some(receiver)));
    let service = get(async move || {
        let body = body_of(receiver.lock().take().unwrap());
        ([(header::CONTENT_TYPE, "text/event-stream")], body)
    });
    let service = serve(Router::new().route("/asset_stream", service)).await;
    let directory = Arc::new(RwLock::new(directory(true)));
    let (news, changes) = watch::channel(0);
    let router = router_of(&service, Arc::clone(&directory), changes).await;
    let url = format!("{router}/asset_stream?asset_uuid=CNC-1,CNC-2");
    let mut stream = reqwest::get(url).await.unwrap().bytes_stream();
    let register = |asset: &str, workcenter: &str| {
        let entry = [("workcenter", workcenter)].into_iter().collect();
        directory.write().apply(asset, Some(&entry)).unwrap();
        news.send_modify(|count| *count += 1);
    };
    register("CNC-9", "Paint");
    sender.send(Bytes::from("a")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "a");
    register("CNC-2", "Paint");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn the_service_of_another_group_at_the_address_is_no_stream() {
    let service = get(
        async |headers: HeaderMap| match headers["ofa-group"].to_str() {
            Ok("Weld") => StatusCode::MISDIRECTED_REQUEST,
            _ => StatusCode::OK,
        },
    );
    let service = serve(Router::new().route("/asset_stream", service)).await;
    let router = router(&service, true).await;
    let answer = reqwest::get(format!("{router}/asset_stream?asset_uuid=CNC-1")).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn the_service_gets_what_concerns_it_and_no_credentials() {
    let service = get(async |RawQuery(query): RawQuery, headers: HeaderMap| {
        let names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        let id = headers
            .get("last-event-id")
            .map(|id| id.to_str().unwrap().to_owned());
        axum::Json(json!({ "query": query, "id": id, "names": names }))
    });
    let service = serve(Router::new().route("/asset_stream", service)).await;
    let router = router(&service, true).await;
    let query = "asset_uuid=CNC%2D1&id=a%2Cb";
    for path in [
        "/asset_stream",
        "/group/Weld/asset_stream",
        "/group/Halle%203%2FS%C3%BCd/asset_stream",
    ] {
        let request = Client::new().get(format!("{router}{path}?{query}"));
        let request = request
            .header("Last-Event-ID", "t/0/4")
            .header("Authorization", "Bearer secret")
            .header("Cookie", "secret");
        let seen: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(
            (&seen["query"], &seen["id"]),
            (&json!(query), &json!("t/0/4"))
        );
        let names = seen["names"].as_array().unwrap();
        assert!(!names.contains(&json!("authorization")) && !names.contains(&json!("cookie")));
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_in_upstreams_form() {
    let router = router("http://127.0.0.1:9", true).await;
    for path in [
        "/asset_stream?asset_uuid=loose",
        "/group/Nowhere/asset_stream?asset_uuid=CNC-1",
    ] {
        let expected = (404, json!({ "detail": "Asset group not found" }));
        assert_eq!(answer(&format!("{router}{path}")).await, expected);
    }
    for (path, status) in [
        ("/asset_stream?asset_uuid=nobody", 404),
        ("/asset_state?asset_uuid=nobody", 404),
        ("/asset_stream", 400),
        ("/asset_stream?asset_uuid=CNC-1,P", 400),
        ("/assets?limit=x", 400),
    ] {
        let (answered, body) = answer(&format!("{router}{path}")).await;
        assert_eq!(answered, status, "{path}");
        assert!(body["detail"].is_string());
    }
}

#[tokio::test]
async fn what_may_be_there_soon_is_to_be_asked_for_again() {
    let complete = router("http://127.0.0.1:9", true).await;
    let reading = router("http://127.0.0.1:9", false).await;
    for url in [
        format!("{complete}/asset_stream?asset_uuid=CNC-1"),
        format!("{complete}/asset_stream?asset_uuid=Z"),
        format!("{reading}/asset_stream?asset_uuid=nobody"),
        format!("{reading}/group/Nowhere/asset_stream?asset_uuid=A"),
    ] {
        let answer = reqwest::get(&url).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{url}");
        assert!(answer.headers().contains_key("retry-after"), "{url}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_by_nobody() {
    let service = get(async || Redirect::temporary("http://127.0.0.1:9/").into_response());
    let service = serve(Router::new().route("/asset_state", service)).await;
    let router = router(&service, true).await;
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let url = format!("{router}/asset_state?asset_uuid=CNC-1");
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(!answer.headers().contains_key("location"));
}

#[tokio::test]
async fn groups_and_assets_are_listed() {
    let router = router("http://127.0.0.1:9", true).await;
    let (_, groups) = answer(&format!("{router}/groups")).await;
    assert_eq!(groups["complete"], true);
    let names: Vec<&Value> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| &group["name"])
        .collect();
    assert_eq!(names, ["Halle 3/Süd", "Paint", "Sleeping", "Weld"]);
    let weld = json!({ "name": "Weld", "topic": "asset_stream_Weld_topic", "assets": 2, "serving": true, "lag": null });
    assert_eq!(groups["groups"][3], weld);
    let (_, found) = answer(&format!("{router}/assets?search=cnc&group=Weld&limit=1")).await;
    let asset = |asset: &str| json!({ "asset_uuid": asset, "group": "Weld" });
    assert_eq!(found, json!({ "total": 2, "assets": [asset("CNC-1")] }));
    let url = format!("{router}/assets?search=cnc&offset=1&limit=1");
    let (_, found) = answer(&url).await;
    assert_eq!(found, json!({ "total": 2, "assets": [asset("CNC-2")] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_as_far_behind_as_its_query() {
    let broker = Broker::start().await;
    broker.create_topic("ofa_assets", 2).await;
    let producer = broker.producer();
    for number in 0..10 {
        produce(&producer, ("ofa_assets", 1), ("A0", "x"), number, 0);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    broker.commit(QUERY, "ofa_assets", &[0, 3]).await;

    let lags = Lags::new(&broker.settings());
    let directory = Arc::new(RwLock::new(directory(true)));
    let service = "http://127.0.0.1:9";
    let router = router_with(service, directory, watch::channel(0).1, Some(lags)).await;
    let deadline = tokio::time::Instant::now() + common::PATIENCE;
    loop {
        let (_, groups) = answer(&format!("{router}/groups")).await;
        // Nobody is known to write the others' streams.
        assert_eq!(groups["groups"][1]["lag"], Value::Null);
        if groups["groups"][3]["lag"] == 7 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{groups}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_page_and_the_description_are_in_the_program() {
    let router = router("http://127.0.0.1:9", true).await;
    for (path, kind, holds) in [
        ("/", "text/html", "page.js"),
        ("/page.js", "text/javascript", "AssetStream"),
        ("/stream.js", "text/javascript", "AssetStream"),
        ("/page.css", "text/css", "main"),
    ] {
        let answer = reqwest::get(format!("{router}{path}")).await.unwrap();
        assert!(
            answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with(kind)
        );
        assert!(answer.headers().contains_key("content-security-policy"));
        assert!(answer.text().await.unwrap().contains(holds), "{path}");
    }
    let (status, openapi) = answer(&format!("{router}/openapi.json")).await;
    assert_eq!(status, 200);
    assert_eq!(openapi["openapi"], "3.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_the_router_misses_nothing_when_the_groups_service_restarts() {
    const TOPIC: &str = "asset_stream_Weld_topic";
    let broker = Broker::start().await;
    broker.create_topic("asset_to_uns_map_topic", 1).await;
    broker.create_topic(TOPIC, 2).await;
    let producer = broker.producer();
    let entry = json!({ "ASSET_UUID": "A0", "UNS_LEVELS": { "workcenter": "Weld" } }).to_string();
    let entry = FutureRecord::to("asset_to_uns_map_topic")
        .key("A0")
        .payload(&entry);
    producer.send(entry, Duration::from_secs(30)).await.unwrap();

    let mut group = Service::new("group", &broker, &[("ASSET_GROUP", "Weld")]);
    group.start().await;
    let folder = tempfile::tempdir().unwrap();
    let services = folder.path().join("services.json");
    std::fs::write(&services, json!({ "Weld": group.url("") }).to_string()).unwrap();
    let settings = [
        ("GROUP_SERVICES", services.to_str().unwrap()),
        ("NATS_CLUSTER_C1", "nats://127.0.0.1:4222"),
    ];
    let mut router = Service::new("router", &broker, &settings);
    router.start().await;

    let mut client = EventSource::new(router.url("/asset_stream?asset_uuid=A0"));
    while !client.connect().await {
        // The map of assets is still being read.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let send = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let partition = i32::from(number % 2 == 0);
            let id = "A0/x";
            produce(&producer, (TOPIC, partition), ("A0", id), number, 0);
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    };
    send(0..500);
    client.receive(&[("A0".to_owned(), 500)].into()).await;
    group.kill();
    send(500..1000);
    group.start().await;
    client.receive(&[("A0".to_owned(), 1000)].into()).await;
    let received = &client.numbers["A0"];
    for parity in [0, 1] {
        let of_partition: Vec<usize> = received
            .iter()
            .copied()
            .filter(|number| number % 2 == parity)
            .collect();
        let expected: Vec<usize> = (0..1000).filter(|number| number % 2 == parity).collect();
        assert_eq!(of_partition, expected);
    }
    let (status, state) = router.get("/asset_state?asset_uuid=A0&id=A0/x").await;
    assert_eq!(status, 200, "{state}");
    router.terminate().await;
}
