//! A newer operator replaces nothing that its users did not change.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use ofa_crds::api::{ConditionStatus, ForwarderPool, NatsShard};
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

/// Nodes as an earlier operator has left them: made in another way, of the same that users have chosen.
async fn as_an_earlier_operator_left_it(client: &Client, namespace: &str) {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let earlier = json!({"spec": {"template": {
        "metadata": {"annotations": {"fanout.openfactory.io/template": "earlier"}},
        "spec": {"terminationGracePeriodSeconds": 77},
    }}});
    let params = PatchParams {
        field_manager: Some("openfactory-fanout".to_owned()),
        ..PatchParams::default()
    };
    let patched = sets
        .patch("line", &params, &Patch::Strategic(earlier))
        .await;
    patched.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (params, all) = (DeleteParams::default(), ListParams::default());
    let everything = pods.delete_collection(&params, &all).await;
    everything.unwrap();
    eventually("nodes of the earlier operator", || async {
        let pods = shard::pods(client, namespace).await;
        let earlier = |pod: &Pod| {
            let mark = pod.annotations().get("fanout.openfactory.io/template");
            let ip = pod
                .status
                .as_ref()
                .and_then(|status| status.pod_ip.as_ref());
            mark.is_some_and(|mark| mark == "earlier") && ip.is_some()
        };
        (pods.len() == 2 && pods.iter().all(earlier)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nodes_of_a_shard_wait_for_a_word_of_the_users_too() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    shard::create(&client, &namespace, "line", json!({"nodes": 2})).await;
    shard::settled(&client, &namespace, "line").await;
    operator.stop().await;
    as_an_earlier_operator_left_it(&client, &namespace).await;
    let uids = async || -> BTreeSet<Option<String>> {
        let pods = shard::pods(&client, &namespace).await;
        pods.into_iter().map(|pod| pod.metadata.uid).collect()
    };
    let before = uids().await;

    let operator = Operator::start(&client, &namespace, &kafka);
    let said = shard::until(&client, &namespace, "line", "RolloutPending").await;
    let annotation = "fanout.openfactory.io/roll-out";
    assert!(said.message.contains(annotation), "{}", said.message);
    // What users choose to change without a restart reaches the nodes as they are.
    let config = json!({"config": {"maxConnections": 1000}});
    shard::change(&client, &namespace, "line", config).await;
    shard::settled(&client, &namespace, "line").await;
    assert_eq!(uids().await, before, "the upgrade has replaced nodes");

    let asked = json!({"metadata": {"annotations": {annotation: "now"}}});
    let shards: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams::default();
    let asked = Patch::Merge(asked);
    shards.patch("line", &params, &asked).await.unwrap();
    eventually("every node replaced", || async {
        let now = uids().await;
        (now.len() == 2 && now.is_disjoint(&before)).then_some(())
    })
    .await;
    shard::settled(&client, &namespace, "line").await;
    operator.stop().await;
    done(&client, &namespace).await;
}
