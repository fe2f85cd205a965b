//! ForwarderPools: their objects, their map, their scale, and what a changed secret does.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use ofa_crds::api::{ConditionStatus, ForwarderPool};
use serde_json::{Value, json};

use crate::cluster::{client, done, eventually, names, namespace, objects};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::shard;

pub(crate) async fn create(client: &Client, namespace: &str, name: &str, spec: Value) {
    let pool = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "ForwarderPool",
        "metadata": {"name": name}, "spec": spec,
    });
    let pool: ForwarderPool = serde_json::from_value(pool).unwrap();
    let api: Api<ForwarderPool> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &pool).await.unwrap();
}

pub(crate) async fn settled(client: &Client, namespace: &str, name: &str) -> ForwarderPool {
    let api: Api<ForwarderPool> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{name} settled"), || async {
        let pool = api.get(name).await.unwrap();
        let status = pool.status.clone().unwrap_or_default();
        let is = |kind: &str, wanted| {
            status
                .conditions
                .iter()
                .any(|c| c.kind == kind && c.status == wanted)
        };
        let current = status.observed_generation == pool.metadata.generation;
        let settled =
            is("Ready", ConditionStatus::True) && is("Reconciling", ConditionStatus::False);
        (current && settled).then_some(pool)
    })
    .await
}

fn secret(name: &str, password: &str) -> Secret {
    let values = [("username", "forwarder"), ("password", password)];
    Secret {
        metadata: kube::core::ObjectMeta {
            name: Some(name.to_owned()),
            ..Default::default()
        },
        data: Some(
            values
                .map(|(k, v)| (k.to_owned(), ByteString(v.into())))
                .into(),
        ),
        ..Secret::default()
    }
}

async fn template_mark(client: &Client, namespace: &str) -> Option<String> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let template = api.get("pool").await.unwrap().spec.unwrap().template;
    template
        .metadata?
        .annotations?
        .get("fanout.openfactory.io/template")
        .cloned()
}

#[tokio::test]
async fn a_pool_follows_its_shards_and_its_scale() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    let selector = json!({"shardSelector": {"matchLabels": {"factory": "test"}}});
    create(&client, &namespace, "pool", selector).await;
    shard::create(&client, &namespace, "line", json!({})).await;
    let pool = settled(&client, &namespace, "pool").await;
    let status = pool.status.unwrap();
    assert_eq!(
        (status.shards, status.shard_map_epoch, status.partitions),
        (1, 1, Some(6))
    );
    let map = kafka.map(&format!("{namespace}.pool")).unwrap();
    assert_eq!(map.shards()[0].name.as_str(), "line");
    let all = names(&objects(&client, &namespace).await);
    let ours: Vec<&String> = all.iter().filter(|name| name.ends_with("/pool")).collect();
    assert_eq!(
        ours,
        [
            "Deployment/pool",
            "PodDisruptionBudget/pool",
            "ServiceAccount/pool"
        ]
    );

    // As a HorizontalPodAutoscaler and `kubectl scale` do.
    let api: Api<ForwarderPool> = Api::namespaced(client.clone(), &namespace);
    let scale = Patch::Merge(json!({"spec": {"replicas": 4}}));
    api.patch_scale("pool", &PatchParams::default(), &scale)
        .await
        .unwrap();
    eventually("four forwarders", || async {
        let scale = api.get_scale("pool").await.unwrap();
        (scale.status?.replicas == 4).then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn a_missing_secret_is_named_and_a_changed_one_rolls_the_forwarders() {
    let client = client();
    let namespace = namespace(&client).await;
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    let sasl = json!({"mechanism": "SCRAM-SHA-512", "secretName": "kafka-user"});
    let kafka = json!({"bootstrapServers": "kafka:9092", "sasl": sasl});
    create(&client, &namespace, "pool", json!({ "kafka": kafka })).await;
    let api: Api<ForwarderPool> = Api::namespaced(client.clone(), &namespace);
    eventually("the missing secret named", || async {
        let status = api.get("pool").await.unwrap().status?;
        let stalled = status
            .conditions
            .into_iter()
            .find(|c| c.kind == "Stalled")?;
        (stalled.reason == "SecretMissing" && stalled.message.contains("kafka-user")).then_some(())
    })
    .await;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    secrets
        .create(&PostParams::default(), &secret("kafka-user", "one"))
        .await
        .unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    eventually("forwarders", || async {
        deployments.get_opt("pool").await.unwrap()
    })
    .await;
    let before = template_mark(&client, &namespace).await;

    let params = PatchParams::default();
    let changed = Patch::Merge(secret("kafka-user", "two"));
    secrets
        .patch("kafka-user", &params, &changed)
        .await
        .unwrap();
    eventually("another template", || async {
        (template_mark(&client, &namespace).await != before).then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
