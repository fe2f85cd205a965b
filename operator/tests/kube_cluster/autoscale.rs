//! The number of forwarders follows their lag, through the scale subresource.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use ofa_crds::api::ForwarderPool;
use serde_json::json;

use crate::cluster::{client, done, eventually, namespace};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::{pool, shard};

#[tokio::test]
async fn a_lag_adds_a_forwarder_once_the_last_one_has_its_partitions() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    shard::create(&client, &namespace, "line", json!({"nodes": 1})).await;
    let limits = json!({"minReplicas": 1, "maxReplicas": 4, "targetLag": 100});
    pool::create(
        &client,
        &namespace,
        "pool",
        json!({ "autoscaling": limits }),
    )
    .await;
    pool::settled(&client, &namespace, "pool").await;
    let pools: Api<ForwarderPool> = Api::namespaced(client.clone(), &namespace);
    let scale = async || {
        pools
            .get_scale("pool")
            .await
            .unwrap()
            .spec
            .unwrap()
            .replicas
    };
    assert_eq!(scale().await, Some(1));

    // During a rebalance nothing is done about a lag, however long.
    kafka.group(100_000, None);
    let says = async |word: &str| {
        eventually(word, || async {
            let status = pools.get("pool").await.unwrap().status?;
            status.autoscaling?.message.contains(word).then_some(())
        })
        .await;
    };
    says("has not settled").await;
    assert_eq!(scale().await, Some(1));

    kafka.group(100_000, Some(1));
    eventually("a second forwarder", || async {
        (scale().await == Some(2)).then_some(())
    })
    .await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    eventually("its pod", || async {
        let spec = deployments.get("pool").await.unwrap().spec.unwrap();
        (spec.replicas == Some(2)).then_some(())
    })
    .await;
    says("has not settled").await;
    assert_eq!(
        scale().await,
        Some(2),
        "the second one has no partitions yet"
    );
    operator.stop().await;
    done(&client, &namespace).await;
}
