//! What somebody changes by hand is put right.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{api, client, done, eventually, namespace};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::shard::{create, settled};

#[tokio::test]
async fn drift_is_repaired() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({})).await;
    settled(&client, &namespace, "line").await;

    let budgets = api::<PodDisruptionBudget>(&client, &namespace);
    budgets
        .delete("line", &DeleteParams::default())
        .await
        .unwrap();
    eventually("a new budget", || async {
        budgets.get_opt("line").await.unwrap()
    })
    .await;

    let sets = api::<StatefulSet>(&client, &namespace);
    let scaled = Patch::Merge(json!({"spec": {"replicas": 1}}));
    sets.patch("line", &PatchParams::default(), &scaled)
        .await
        .unwrap();
    eventually("three nodes again", || async {
        let set = sets.get("line").await.unwrap();
        (set.data["spec"]["replicas"] == 3).then_some(())
    })
    .await;

    let services = api::<Service>(&client, &namespace);
    let other = Patch::Merge(json!({"spec": {"selector": {"app.kubernetes.io/name": "other"}}}));
    services
        .patch("line", &PatchParams::default(), &other)
        .await
        .unwrap();
    eventually("the selector again", || async {
        let service = services.get("line").await.unwrap();
        let selector = &service.data["spec"]["selector"]["app.kubernetes.io/name"];
        (selector == "nats-shard").then_some(())
    })
    .await;

    let secrets = api::<Secret>(&client, &namespace);
    let emptied = Patch::Merge(json!({"data": {"etc__nats__nats.conf": ""}}));
    secrets
        .patch("line-files", &PatchParams::default(), &emptied)
        .await
        .unwrap();
    eventually("the configuration again", || async {
        let secret = secrets.get("line-files").await.unwrap();
        (secret.data["data"]["etc__nats__nats.conf"] != "").then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
