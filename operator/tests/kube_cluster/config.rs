//! A changed configuration reaches the nodes of a shard: real nats-servers, none of which restarts unless it must.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::{client, done, eventually, namespace};
use crate::kafka::Kafka;
use crate::kubelet::Kubelet;
use crate::nodes::conf_of;
use crate::operator::Operator;
use crate::shard::{change, create, pods, settled, until};

async fn uids(client: &Client, namespace: &str) -> BTreeSet<String> {
    let all = pods(client, namespace).await;
    all.iter().filter_map(|pod| pod.uid()).collect()
}

/// One setting of every node, as it runs.
async fn running(client: &Client, namespace: &str, setting: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for pod in pods(client, namespace).await {
        let ip = pod.status.and_then(|status| status.pod_ip).unwrap();
        let url = format!("http://{ip}:8222/varz");
        let varz: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        all.push(varz[setting].clone());
    }
    all
}

async fn conf(client: &Client, namespace: &str) -> String {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    conf_of(&api.get("line-files").await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_changed_configuration_is_taken_in_or_refused_as_a_whole() {
    let client = client();
    let namespace = namespace(&client).await;
    let _kubelet = Kubelet::run(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({"nodes": 2})).await;
    settled(&client, &namespace, "line").await;
    let before = uids(&client, &namespace).await;

    let set = async |config: Value| {
        let spec = json!({ "config": config });
        change(&client, &namespace, "line", spec).await;
    };
    set(json!({"maxConnections": 1000})).await;
    settled(&client, &namespace, "line").await;
    assert_eq!(
        running(&client, &namespace, "max_connections").await,
        [1000, 1000]
    );
    assert_eq!(
        uids(&client, &namespace).await,
        before,
        "a node was restarted"
    );

    // More than fits into what is kept for a client: nats-server says so itself.
    let good = conf(&client, &namespace).await;
    set(json!({"maxPayload": 33_554_432})).await;
    let stalled = until(&client, &namespace, "line", "Stalled").await;
    assert_eq!(stalled.reason, "ConfigRefused");
    for word in ["line-1 refuses", "cannot be higher than max_pending"] {
        assert!(stalled.message.contains(word), "{}", stalled.message);
    }
    eventually("rolled back", || async {
        (conf(&client, &namespace).await == good).then_some(())
    })
    .await;
    until(&client, &namespace, "line", "Ready").await;
    assert_eq!(
        running(&client, &namespace, "max_payload").await,
        [2_097_152, 2_097_152]
    );

    set(json!({"maxPayload": 4_194_304, "maxConnections": 2000})).await;
    settled(&client, &namespace, "line").await;
    assert_eq!(
        running(&client, &namespace, "max_payload").await,
        [4_194_304, 4_194_304]
    );

    // One more node: the others learn of it without a restart.
    change(&client, &namespace, "line", json!({"nodes": 3})).await;
    settled(&client, &namespace, "line").await;
    let three = uids(&client, &namespace).await;
    assert!(three.is_superset(&before), "a node was restarted");

    // This takes a restart of each node.
    set(json!({"maxPending": 33_554_432})).await;
    settled(&client, &namespace, "line").await;
    assert!(uids(&client, &namespace).await.is_disjoint(&three));
    assert_eq!(
        running(&client, &namespace, "max_pending").await,
        [33_554_432; 3]
    );
    operator.stop().await;
    done(&client, &namespace).await;
}
