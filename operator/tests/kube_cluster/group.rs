//! AssetGroups: their objects, who may derive, and what an upgrade leaves alone.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use ofa_crds::api::{AssetGroup, Condition, ConditionStatus};
use serde_json::{Value, json};

use crate::cluster::{client, done, eventually, names, namespace, objects};
use crate::kafka::Kafka;
use crate::operator::Operator;

pub(crate) async fn create(client: &Client, namespace: &str, name: &str, grouping: Value) {
    let engine = json!({"engine": "Native"});
    create_with(
        client,
        namespace,
        name,
        json!({"grouping": grouping, "stream": engine}),
    )
    .await;
}

async fn create_with(client: &Client, namespace: &str, name: &str, spec: Value) {
    let group = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "AssetGroup",
        "metadata": {"name": name}, "spec": spec,
    });
    let group: AssetGroup = serde_json::from_value(group).unwrap();
    let api: Api<AssetGroup> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &group).await.unwrap();
}

pub(crate) async fn settled(client: &Client, namespace: &str, name: &str) -> AssetGroup {
    let api: Api<AssetGroup> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{name} settled"), || async {
        let group = api.get(name).await.unwrap();
        let status = group.status.clone().unwrap_or_default();
        let is = |kind: &str, wanted| {
            let mut all = status.conditions.iter();
            all.any(|c| c.kind == kind && c.status == wanted)
        };
        let current = status.observed_generation == group.metadata.generation;
        let settled =
            is("Ready", ConditionStatus::True) && is("Reconciling", ConditionStatus::False);
        (current && settled).then_some(group)
    })
    .await
}

/// The condition of this type that holds.
async fn condition(client: &Client, namespace: &str, name: &str, kind: &str) -> Condition {
    let api: Api<AssetGroup> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{kind} of {name}"), || async {
        let status = api.get(name).await.unwrap().status?;
        let mut all = status.conditions.into_iter();
        all.find(|c| c.kind == kind && c.status == ConditionStatus::True)
    })
    .await
}

#[tokio::test]
async fn a_group_has_what_derives_and_a_service_and_leaves_nothing_behind() {
    let client = client();
    let namespace = namespace(&client).await;
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    create(&client, &namespace, "lines", json!({"level": "line"})).await;
    let group = settled(&client, &namespace, "lines").await;
    let status = group.status.unwrap();
    assert_eq!(status.group_count, Some(1));
    assert_eq!(kafka.served(), ["asset_stream_line_topic"]);
    let sets = names(&objects(&client, &namespace).await);
    let sets: Vec<&String> = sets
        .iter()
        .filter(|n| n.starts_with("StatefulSet"))
        .collect();
    assert_eq!(sets.len(), 2, "{sets:?}");

    let api: Api<AssetGroup> = Api::namespaced(client.clone(), &namespace);
    api.delete("lines", &DeleteParams::default()).await.unwrap();
    eventually("gone", || async {
        api.get_opt("lines").await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!(names(&objects(&client, &namespace).await), [""; 0]);
    assert_eq!(kafka.served(), [""; 0]);
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn of_two_that_would_write_the_same_topics_one_is_refused_whatever_its_engine() {
    let client = client();
    let namespace = namespace(&client).await;
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "lines", json!({"level": "line"})).await;
    settled(&client, &namespace, "lines").await;
    let by_ksqldb = json!({"grouping": {"level": "line"}, "ksqldb": {"url": "http://127.0.0.1:1"}});
    create_with(&client, &namespace, "twice", by_ksqldb).await;
    let refused = condition(&client, &namespace, "twice", "Stalled").await;
    assert_eq!(refused.reason, "LevelTaken");
    for word in ["AssetGroup lines derives", "twice", "keep one of the two"] {
        assert!(refused.message.contains(word), "{}", refused.message);
    }
    settled(&client, &namespace, "lines").await;

    let api: Api<AssetGroup> = Api::namespaced(client.clone(), &namespace);
    api.delete("lines", &DeleteParams::default()).await.unwrap();
    eventually("the other takes its place", || async {
        let status = api.get("twice").await.unwrap().status?;
        let refused = status.conditions.iter().any(|c| c.reason == "LevelTaken");
        (!refused).then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn a_newer_operator_replaces_neither_what_derives_nor_services_unasked() {
    let client = client();
    let namespace = namespace(&client).await;
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    create(&client, &namespace, "lines", json!({"level": "line"})).await;
    settled(&client, &namespace, "lines").await;
    operator.stop().await;
    let before = images(&client, &namespace).await;
    assert_eq!(before.len(), 2);

    let operator = Operator::upgraded(&client, &namespace, &kafka);
    let said = condition(&client, &namespace, "lines", "RolloutPending").await;
    let annotation = "fanout.openfactory.io/roll-out";
    assert!(said.message.contains(annotation), "{}", said.message);
    assert_eq!(images(&client, &namespace).await, before);

    let api: Api<AssetGroup> = Api::namespaced(client.clone(), &namespace);
    let asked = json!({"metadata": {"annotations": {annotation: "now"}}});
    let asked = kube::api::Patch::Merge(asked);
    let params = kube::api::PatchParams::default();
    api.patch("lines", &params, &asked).await.unwrap();
    eventually("the newer images", || async {
        let now = images(&client, &namespace).await;
        now.iter()
            .all(|image| image.ends_with(":next"))
            .then_some(())
    })
    .await;
    eventually("nothing waits any more", || async {
        let status = api.get("lines").await.unwrap().status?;
        let waits = status.conditions.iter().any(|c| c.kind == "RolloutPending");
        (!waits).then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}

/// Images of all that runs for groups.
async fn images(client: &Client, namespace: &str) -> Vec<String> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let sets = sets.list(&Default::default()).await.unwrap().items;
    let image = |set: StatefulSet| {
        let mut containers = set.spec.unwrap().template.spec.unwrap().containers;
        containers.remove(0).image.unwrap()
    };
    sets.into_iter().map(image).collect()
}
