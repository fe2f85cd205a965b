//! The state from ksqlDB and the state kept here are one and the same on the same events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../operator/tests/ksqldb/pull_query.rs"]
mod pull_query;

use std::sync::Arc;

use axum::http::StatusCode;
use ofa_serving::event::Columns;
use ofa_serving::state::{Change, KsqlState, State, StateStore};
use pull_query::AssetsTable;
use serde_json::Value;
use tokio::net::TcpListener;

/// Events of a plant, the odd ones among them; each of an asset.
const EVENTS: [(&str, &str); 16] = [
    (
        "CNC-1",
        r#"{"ID":"temp","VALUE":21.50,"TAG":"Temperature","TYPE":"Samples","attributes":{"timestamp":"2026-01-02T03:04:05.678Z"}}"#,
    ),
    (
        "CNC-1",
        r#"{"id":"avail","value":"AVAILABLE","tag":"Availability","type":"Events","attributes":{}}"#,
    ),
    (
        "CNC-1",
        r#"{"ID":"temp","VALUE":"UNAVAILABLE","TYPE":null,"attributes":{"timestamp":"2026-01-02T03:04:06Z"}}"#,
    ),
    ("CNC-1", r#"{"ID":"temp"}"#),
    ("CNC-1", r#"{"ID":"large","VALUE":1e21}"#),
    (
        "CNC-1",
        r#"{"ID":"digits","VALUE":123456789012345678901234567890,"TAG":true}"#,
    ),
    (
        "CNC-1",
        r#"{"ID":"list","VALUE":[1, "x", null],"TAG":{"b": 1, "a": [2.50]}}"#,
    ),
    ("CNC-1", r#"{"ID":"both","value":"lower","VALUE":"upper"}"#),
    ("CNC-1", r#"{"ID":null,"VALUE":1}"#),
    ("CNC-1", r#"{"VALUE":1}"#),
    ("CNC-1", r#"{"ID":"unicodé ☃ 'x'","VALUE":"a\"b\\c\n"}"#),
    ("CNC-1", r#"{"ID":"${x}","VALUE":"a variable's name"}"#),
    ("CNC-1|a", r#"{"ID":"b","VALUE":"of another asset"}"#),
    ("CNC-1", r#"{"ID":"c","VALUE":"its own"}"#),
    (
        "'; DROP TABLE assets; --",
        r#"{"ID":"x","VALUE":"still there"}"#,
    ),
    ("${y}", r#"{"ID":"x","VALUE":0.0000001}"#),
];

const IDS: [&str; 12] = [
    "temp",
    "avail",
    "large",
    "digits",
    "list",
    "both",
    "unicodé ☃ 'x'",
    "${x}",
    "b",
    "c",
    "x",
    "none",
];

async fn ksqldb(table: &Arc<AssetsTable>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = table.route();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

fn local() -> Arc<StateStore> {
    Arc::new(StateStore::open(None, "t").unwrap())
}

async fn answer(state: &State, query: &str) -> (StatusCode, Value) {
    use axum::response::IntoResponse as _;
    let answer = state.answer(Some(query)).await;
    let answer = answer.unwrap_or_else(|error| error.into_response());
    let (status, body) = (answer.status(), answer.into_body());
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn ksqldb_and_the_local_state_say_the_same() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let table = Arc::new(AssetsTable::default());
    let filled = local();
    for (asset, event) in EVENTS {
        table.take(asset, event);
        let columns = Columns::parse(event.as_bytes()).unwrap();
        let asset = asset.into();
        filled.apply(vec![Change { asset, columns }], []).unwrap();
    }
    let by_ksqldb = State {
        local: Some(local()),
        ksql: Some(KsqlState::new(&ksqldb(&table).await, "assets").unwrap()),
    };
    let by_store = State {
        local: Some(filled),
        ksql: None,
    };
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    for asset in [
        "CNC-1",
        "CNC-1|a",
        "'; DROP TABLE assets; --",
        "${y}",
        "nobody",
    ] {
        let all = format!("asset_uuid={}", encode(asset));
        let queries = IDS.iter().map(|id| format!("{all}&id={}", encode(id)));
        for query in std::iter::once(all.clone()).chain(queries) {
            let expected = answer(&by_store, &query).await;
            assert_eq!(answer(&by_ksqldb, &query).await, expected, "{query}");
        }
    }
    let (_, temp) = answer(&by_ksqldb, "asset_uuid=CNC-1&id=temp").await;
    assert_eq!(
        (&temp["value"], &temp["type"]),
        (&"UNAVAILABLE".into(), &"Samples".into())
    );
    let (_, all) = answer(&by_ksqldb, "asset_uuid=CNC-1").await;
    assert_eq!(all["dataItems"].as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn while_ksqldb_cannot_answer_the_local_state_does() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let table = Arc::new(AssetsTable::default());
    let store = local();
    let columns = Columns::parse(br#"{"ID":"x","VALUE":1}"#).unwrap();
    let asset = "A".into();
    store.apply(vec![Change { asset, columns }], []).unwrap();
    for (url, name) in [
        ("http://127.0.0.1:9".to_owned(), "assets"),
        (ksqldb(&table).await, "no_such_table"),
    ] {
        let state = State {
            local: Some(Arc::clone(&store)),
            ksql: Some(KsqlState::new(&url, name).unwrap()),
        };
        let (status, item) = answer(&state, "asset_uuid=A&id=x").await;
        assert_eq!((status, &item["value"]), (StatusCode::OK, &"1".into()));
        assert_eq!(answer(&state, "asset_uuid=A").await.0, StatusCode::OK);
    }
    assert!(KsqlState::new("ksqldb:8088", "assets").is_err());
    assert!(KsqlState::new("http://k:8088", "no table").is_err());
}
