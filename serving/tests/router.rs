//! The routing layer over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use ofa_serving::metrics::Metrics;
use ofa_serving::router::{Routing, app, static_map};
use ofa_serving::{http, shutdown};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

struct Served {
    url: String,
    routing: watch::Sender<Routing>,
}

fn known(clusters: &[&str]) -> Routing {
    let variables = clusters.iter().map(|name| {
        let urls = format!("nats://{name}-0:4222,nats://{name}-1:4222");
        (format!("NATS_CLUSTER_{name}"), urls)
    });
    let map = static_map(variables, 128).unwrap().unwrap().with_epoch(7);
    Routing::by(None, Arc::new(map))
}

async fn serve(routing: Routing) -> Served {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = watch::channel(routing);
    let app = app(receiver, Arc::new(Metrics::new("router")));
    tokio::spawn(http::serve(listener, app, shutdown::requested()));
    Served {
        url,
        routing: sender,
    }
}

impl Served {
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn golden_vectors_of_openfactory() {
    let served = serve(known(&["C1", "C2"])).await;
    let of_two = ["C2", "C2", "C1", "C1", "C1", "C2"];
    let of_three = ["C2", "C2", "C3", "C1", "C3", "C3"];
    for (clusters, expected) in [(&["C1", "C2"][..], of_two), (&["C1", "C2", "C3"], of_three)] {
        served.routing.send(known(clusters)).unwrap();
        let keys = [
            "PROVER3018",
            "WTVB01-001",
            "OPCUA-SENSOR-001",
            "OPCUA-SENSOR-002",
            "VIRTUAL-TEMP-SENS-001",
            "VIRTUAL-BARCODE-READER",
        ];
        for (key, cluster) in keys.into_iter().zip(expected) {
            let (status, answer) = served.get(&format!("/asset/{key}")).await;
            assert_eq!(status, StatusCode::OK);
            let urls = [
                format!("nats://{cluster}-0:4222"),
                format!("nats://{cluster}-1:4222"),
            ];
            let expected = json!({
                "asset_id": key,
                "cluster_name": cluster,
                "nats_url": urls[0],
                "nats_urls": urls,
                "subject": format!("{key}.*"),
                "epoch": 7,
            });
            assert_eq!(answer, expected);
        }
    }
}

#[tokio::test]
async fn any_uuid_can_be_asked_for() {
    let served = serve(known(&["C1", "C2"])).await;
    for (path, uuid, subject) in [
        ("/asset/OKUMA.123456", "OKUMA.123456", "OKUMA%2E123456.*"),
        ("/asset/a%2Fb", "a/b", "a/b.*"),
        ("/asset/a/b", "a/b", "a/b.*"),
        ("/asset/a/", "a/", "a/.*"),
        ("/asset/Halle%203", "Halle 3", "Halle%203.*"),
        ("/asset/M%C3%BCller", "Müller", "Müller.*"),
        ("/asset/%2525", "%25", "%2525.*"),
        ("/asset/%2A", "*", "%2A.*"),
        ("/asset/x%0D%0AY", "x\r\nY", "x%0D%0AY.*"),
        ("/asset?uuid=..", "..", "%2E%2E.*"),
    ] {
        let (status, answer) = served.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        assert_eq!(answer["asset_id"], uuid);
        assert_eq!(answer["subject"], subject);
    }
}

#[tokio::test]
async fn what_names_no_asset_is_a_bad_request() {
    let served = serve(known(&["C1"])).await;
    let too_long = format!("/asset/{}", "x".repeat(4097));
    for path in ["/asset/", "/asset", "/asset/%FF", "/asset?uuid=", &too_long] {
        let (status, answer) = served.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer["detail"].is_string(), "{path}: {answer}");
    }
    let (status, answer) = served.get("/assets/x").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(answer["detail"].is_string());
}

#[tokio::test]
async fn before_a_shard_map_is_known_clients_are_told_to_come_back() {
    let served = serve(Routing::Unknown("no map yet".into())).await;
    for path in ["/asset/a", "/shards"] {
        let answer = reqwest::get(format!("{}{path}", served.url)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body, json!({ "detail": "no map yet" }));
    }
    let (status, answer) = served.get("/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["issues"]["shard_map"], "no map yet");
    assert_eq!(served.get("/health").await.1, json!({ "status": "ok" }));

    served.routing.send(known(&["C1"])).unwrap();
    assert_eq!(served.get("/asset/a").await.0, StatusCode::OK);
    assert_eq!(served.get("/ready").await.1, json!({ "status": "ready" }));
}

#[tokio::test]
async fn the_shards_and_their_shares_are_listed() {
    let served = serve(known(&["C1", "C2"])).await;
    let (_, answer) = served.get("/shards").await;
    assert_eq!(answer["epoch"], 7);
    let shares: f64 = answer["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["share"].as_f64().unwrap())
        .sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert_eq!(answer["shards"][1]["name"], "C2");
}

#[tokio::test]
async fn answers_are_counted_by_route_and_never_by_asset() {
    let served = serve(known(&["C1"])).await;
    served.get("/asset/secret-name").await;
    served.get("/nowhere").await;
    let text = reqwest::get(format!("{}/metrics", served.url));
    let text = text.await.unwrap().text().await.unwrap();
    let counted = r#"serving_http_requests_total{route="/asset/{*uuid}",status="200"} 1"#;
    assert!(text.contains(counted), "{text}");
    assert!(text.contains(r#"serving_http_requests_total{route="unknown",status="404"} 1"#));
    assert!(!text.contains("secret-name"));
}
