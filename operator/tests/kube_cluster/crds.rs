//! What the API server refuses by itself, and what it says.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, Resource};
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use serde_json::{Value, json};

use crate::cluster::{client, done, namespace};

async fn create<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    name: &str,
    spec: Value,
) -> Result<DynamicObject, String> {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let object = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": name}, "spec": spec,
    });
    let object = serde_json::from_value(object).unwrap();
    let params = PostParams {
        dry_run: false,
        ..PostParams::default()
    };
    api.create(&params, &object)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            other => panic!("{other}"),
        })
}

#[tokio::test]
async fn the_smallest_manifest_of_each_kind_is_accepted_and_completed() {
    let client = client();
    let namespace = namespace(&client).await;
    let shard = create::<NatsShard>(&client, &namespace, "a", json!({}))
        .await
        .unwrap();
    assert_eq!(shard.data["spec"]["nodes"], 3);
    assert_eq!(
        shard.data["spec"]["spread"]["topologyKey"],
        "kubernetes.io/hostname"
    );
    let pool = create::<ForwarderPool>(&client, &namespace, "a", json!({}))
        .await
        .unwrap();
    assert_eq!(pool.data["spec"]["source"]["topic"], "ofa_assets");
    assert_eq!(
        pool.data["spec"]["consumerGroup"],
        "ofa_fan_out_layer_group"
    );
    let group = json!({"grouping": {"level": "workcenter"}});
    let group = create::<AssetGroup>(&client, &namespace, "a", group)
        .await
        .unwrap();
    assert_eq!(group.data["spec"]["stream"]["engine"], "ksqlDB");
    done(&client, &namespace).await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_what_to_do() {
    let client = client();
    let namespace = namespace(&client).await;
    let mut answers: Vec<(&str, String)> = Vec::new();
    let shards = [
        ("too old", json!({"version": "2.10.29"})),
        ("no version", json!({"version": "latest"})),
        ("no nodes", json!({"nodes": 0})),
        ("too many nodes", json!({"nodes": 10})),
        ("no name on the ring", json!({"clusterName": "a b"})),
        (
            "lame duck too short",
            json!({"config": {"lameDuckSeconds": 5}}),
        ),
        ("unknown spread", json!({"spread": {"mode": "Sometimes"}})),
        ("tls without secret", json!({"tls": {}})),
    ];
    for (case, spec) in shards {
        let refused = create::<NatsShard>(&client, &namespace, "bad", spec).await;
        answers.push((case, refused.expect_err(case)));
    }
    let long = "a".repeat(41);
    let refused = create::<NatsShard>(&client, &namespace, &long, json!({})).await;
    answers.push(("shard's name too long", refused.unwrap_err()));
    let pools = [
        ("no topic", json!({"source": {"topic": "a b"}})),
        (
            "dead letters to the source",
            json!({"deadLetterTopic": "ofa_assets"}),
        ),
        (
            "more than most",
            json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
        ),
        ("no most", json!({"autoscaling": {}})),
        ("unknown payload", json!({"payload": "Xml"})),
        (
            "unknown mechanism",
            json!({"kafka": {"sasl": {"mechanism": "GSSAPI", "secretName": "s"}}}),
        ),
    ];
    for (case, spec) in pools {
        let refused = create::<ForwarderPool>(&client, &namespace, "bad", spec).await;
        answers.push((case, refused.expect_err(case)));
    }
    let groups = [
        ("no level", json!({"grouping": {}})),
        (
            "a name for many streams",
            json!({"grouping": {"level": "l"}, "stream": {"name": "s"}}),
        ),
        (
            "no partitions",
            json!({"grouping": {"level": "l"}, "stream": {"partitions": 0}}),
        ),
    ];
    for (case, spec) in groups {
        let refused = create::<AssetGroup>(&client, &namespace, "bad", spec).await;
        answers.push((case, refused.expect_err(case)));
    }
    insta::assert_yaml_snapshot!(answers);
    done(&client, &namespace).await;
}

#[tokio::test]
async fn a_shards_name_on_the_ring_never_changes() {
    let client = client();
    let namespace = namespace(&client).await;
    create::<NatsShard>(&client, &namespace, "a", json!({"clusterName": "C1"}))
        .await
        .unwrap();
    let api: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    for name in [json!("C2"), Value::Null] {
        let change = json!({"spec": {"clusterName": name}});
        let refused = api
            .patch("a", &PatchParams::default(), &Patch::Merge(change))
            .await;
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("create a shard of the new name"),
            "{message}"
        );
    }
    let change = json!({"spec": {"nodes": 2}});
    api.patch("a", &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
    done(&client, &namespace).await;
}
