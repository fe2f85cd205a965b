//! A newer operator replaces nothing that its users did not change.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use ofa_crds::api::{ConditionStatus, ForwarderPool};
use serde_json::{Value, json};

use crate::cluster::{client, done, eventually, namespace};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::{pool, shard};

#[tokio::test]
async fn a_newer_operator_waits_for_a_word_of_the_users() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    shard::create(&client, &namespace, "line", json!({"nodes": 1})).await;
    pool::create(&client, &namespace, "pool", json!({})).await;
    pool::settled(&client, &namespace, "pool").await;
    operator.stop().await;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let template = async || {
        deployments
            .get("pool")
            .await
            .unwrap()
            .spec
            .unwrap()
            .template
    };
    let image = async || {
        template()
            .await
            .spec
            .unwrap()
            .containers
            .remove(0)
            .image
            .unwrap()
    };
    let before = template().await;

    let operator = Operator::upgraded(&client, &namespace, &kafka);
    let pools: Api<ForwarderPool> = Api::namespaced(client.clone(), &namespace);
    let pending = || async {
        let status = pools.get("pool").await.unwrap().status?;
        let mut conditions = status.conditions.into_iter();
        conditions.find(|c| c.kind == "RolloutPending" && c.status == ConditionStatus::True)
    };
    let said = eventually("a word about what waits", pending).await;
    assert!(
        said.message.contains("fanout.openfactory.io/roll-out"),
        "{}",
        said.message
    );
    assert_eq!(
        template().await,
        before,
        "the upgrade has replaced forwarders"
    );

    // Their number is nothing that pods are replaced for.
    let patch = async |patch: Value| {
        let params = PatchParams::default();
        pools
            .patch("pool", &params, &Patch::Merge(patch))
            .await
            .unwrap();
    };
    patch(json!({"spec": {"replicas": 3}})).await;
    eventually("three forwarders", || async {
        let spec = deployments.get("pool").await.unwrap().spec.unwrap();
        (spec.replicas == Some(3)).then_some(())
    })
    .await;
    assert_eq!(template().await, before);

    let annotation = json!({"fanout.openfactory.io/roll-out": "now"});
    patch(json!({"metadata": {"annotations": annotation}})).await;
    eventually("the newer image", || async {
        image().await.ends_with("forwarder:next").then_some(())
    })
    .await;
    eventually("nothing waits any more", || async {
        pending().await.is_none().then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
