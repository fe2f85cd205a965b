//! Derived streams by ksqlDB, against a server that answers as ksqlDB does, and against a real one where `KSQLDB_URL` names it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod pull_query;
mod scene;
mod stand_in;

use std::sync::atomic::Ordering;

use ofa_operator::engine::ksqldb::{Action, Claim, KsqlError};
use scene::Scene;

#[tokio::test]
async fn streams_of_any_name_are_made_once_and_stay() {
    let scene = Scene::new(20).await;
    let names = [
        "Weld",
        "weld",
        "WC-1",
        "Halle 3/Süd",
        "'; DROP STREAM x; --",
        "${x}`",
    ];
    let claim = scene.claim(&names);
    let streams = scene.settled("a", &claim).await;
    assert_eq!(streams.len(), names.len());
    for group in &claim.wanted {
        let found = scene.statement(&group.name).await.expect("its query runs");
        assert_eq!(found.1, group.topic);
        // Routers ask Kafka for its positions.
        let progress = streams[&group.name].progress.as_ref();
        let read_by = progress.and_then(|progress| progress.consumer_group.clone());
        let read_by = read_by.expect("its consumer group is told");
        assert!(
            read_by.ends_with(&format!("query_{}", found.0)),
            "{read_by}"
        );
    }
    let made = scene.changes();
    scene.another_look("a", &claim).await;
    assert_eq!(scene.changes(), made, "a settled server is left alone");
    scene.clean(&claim).await;
}

#[tokio::test]
async fn what_is_not_as_asked_for_is_made_again_only_when_that_was_shown() {
    let scene = Scene::new(20).await;
    let mut claim = scene.claim(&["Gone", "Drifted"]);
    let drifted = claim.wanted[1].clone();
    scene
        .run(&format!(
            "CREATE STREAM {} WITH (KAFKA_TOPIC='{}', VALUE_FORMAT='JSON') AS SELECT s.* FROM {} s JOIN {} h ON s.`ASSET_UUID` = h.`ASSET_UUID`;",
            drifted.name, drifted.topic, drifted.source, drifted.map
        ))
        .await;
    let first = scene.claim(&["Gone"]);
    scene.settled("a", &first).await;
    let (query, _) = scene.statement(&first.wanted[0].name).await.unwrap();
    scene.run(&format!("TERMINATE `{query}`;")).await;
    let planned = scene
        .wait("a", &claim, |streams| {
            let recreate =
                |state: &&_| matches!(scene::action(state), Some(Action::Recreate { .. }));
            streams.values().filter(recreate).count() == 2
        })
        .await;
    for (name, state) in planned {
        if let Some(Action::Recreate { why }) = state.action {
            claim.approved.insert(name, why);
        }
    }
    scene.settled("a", &claim).await;
    scene.clean(&claim).await;
}

#[tokio::test]
async fn a_paused_query_goes_on() {
    let scene = Scene::new(20).await;
    let claim = scene.claim(&["Paused"]);
    scene.settled("a", &claim).await;
    let (query, _) = scene.statement(&claim.wanted[0].name).await.unwrap();
    scene.run(&format!("PAUSE `{query}`;")).await;
    scene.another_look("a", &claim).await;
    scene.settled("a", &claim).await;
    assert!(!scene.is_paused(&query).await);
    scene.clean(&claim).await;
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_dropped_and_its_topic_stays() {
    let scene = Scene::new(20).await;
    let claim = scene.claim(&["Left", "Stays"]);
    scene.settled("a", &claim).await;
    let left = claim.wanted[0].name.clone();
    let mut fewer = scene.claim(&["Stays"]);
    fewer.unwanted.push(left.clone());
    scene
        .wait("a", &fewer, |streams| !streams.contains_key(&left))
        .await;
    assert!(scene.statement(&left).await.is_none());
    assert!(
        !scene
            .changes()
            .iter()
            .any(|change| change.contains("DELETE"))
    );
    scene.clean(&fewer).await;
}

#[tokio::test]
async fn a_full_server_says_so_and_what_runs_goes_on() {
    let scene = Scene::new(2).await;
    let claim = scene.claim(&["A", "B", "C"]);
    let streams = scene
        .wait("a", &claim, |streams| {
            streams
                .values()
                .any(|state| matches!(state.action, Some(Action::AtCapacity { .. })))
        })
        .await;
    let settled = |state: &&_| scene::action(state) == Some(&Action::Nothing);
    assert_eq!(streams.values().filter(settled).count(), 2);
    scene.clean(&claim).await;
}

#[tokio::test]
async fn the_second_who_wants_a_stream_is_told() {
    let scene = Scene::new(20).await;
    let claim = scene.claim(&["Shared"]);
    scene.settled("a", &claim).await;
    let refused = scene
        .wait("b", &claim, |streams| {
            let state = streams.values().next();
            state.is_some_and(|state| matches!(state.action, Some(Action::Refused { .. })))
        })
        .await;
    assert_eq!(refused.len(), 1);
    scene.clean(&claim).await;
}

#[tokio::test]
async fn an_answer_that_is_late_or_lost_changes_nothing() {
    let Some(scene) = Scene::stand_in(20).await else {
        return;
    };
    let server = scene.server();
    server.starting.store(2, Ordering::SeqCst);
    server.lost_answers.store(1, Ordering::SeqCst);
    server.slow.store(2, Ordering::SeqCst);
    let claim = scene.claim(&["A", "B", "C"]);
    scene.settled("a", &claim).await;
    let created = |change: &&String| change.starts_with("CREATE STREAM");
    // Each once, the source stream's own aside.
    let made = scene.changes();
    assert_eq!(made.iter().filter(created).count(), 3 + 1, "{made:#?}");
}

#[tokio::test]
async fn a_server_that_is_away_or_is_none_is_told() {
    ofa_operator::tls::install_provider();
    let servers = ofa_operator::engine::ksqldb::KsqlServers::new(1);
    let unreachable = scene::until(|| {
        servers
            .claim("http://127.0.0.1:1", "a", &Claim::default())
            .err()
    });
    let error = unreachable.await;
    assert!(matches!(error, KsqlError::Unreachable { .. }), "{error}");
    let error = servers.claim("ksqldb:8088", "a", &Claim::default());
    assert!(matches!(error, Err(KsqlError::Url(_))));
}

/// What groups' services ask of a server; they are tested against this stand-in.
#[tokio::test]
async fn a_pull_query_is_answered_line_by_line() {
    let Some(scene) = Scene::stand_in(20).await else {
        return;
    };
    let table = &scene.server().assets;
    table.take("A1", r#"{"ID":"t","VALUE":1.50,"TAG":"Temperature"}"#);
    table.take("A1", r#"{"ID":"t","VALUE":null,"TAG":"T"}"#);
    let columns = "SELECT ASSET_UUID, `VALUE`, TAG, TYPE FROM assets";
    let (status, lines) = scene.pull(&format!("{columns} WHERE KEY='A1|t';")).await;
    assert_eq!(status, 200);
    let (head, rows) = lines.split_once('\n').unwrap();
    assert!(head.contains(r#""columnNames":["ASSET_UUID","VALUE","TAG","TYPE"]"#));
    assert_eq!(rows, "[\"A1\",\"1.50\",\"T\",null]\n");
    let (status, none) = scene.pull(&format!("{columns} WHERE KEY='ZZZ';")).await;
    assert_eq!((status, none.lines().count()), (200, 1));
    let (status, error) = scene.pull("SELECT ID FROM nope WHERE KEY='A';").await;
    assert_eq!(status, 400);
    assert!(error.contains("NOPE does not exist."));
}
