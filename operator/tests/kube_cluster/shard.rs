//! NatsShards from their creation on: objects, hosts, scale, rolls through the gate.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use ofa_crds::api::{Condition, ConditionStatus, NatsShard};
use serde_json::{Value, json};

use crate::cluster::{api, client, done, eventually, names, namespace, objects};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;

pub(crate) async fn create(client: &Client, namespace: &str, name: &str, spec: Value) -> NatsShard {
    let shard = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "NatsShard",
        "metadata": {"name": name, "labels": {"factory": "test"}}, "spec": spec,
    });
    let shard: NatsShard = serde_json::from_value(shard).unwrap();
    let api: Api<NatsShard> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &shard).await.unwrap()
}

/// The condition of this type that holds, once it holds for the newest spec.
pub(crate) async fn until(client: &Client, namespace: &str, name: &str, kind: &str) -> Condition {
    let api: Api<NatsShard> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{kind} of {name}"), || async {
        let shard = api.get(name).await.unwrap();
        let status = shard.status.unwrap_or_default();
        let holds = |c: &Condition| {
            c.kind == kind
                && c.status == ConditionStatus::True
                && c.observed_generation == shard.metadata.generation
        };
        status.conditions.into_iter().find(holds)
    })
    .await
}

/// Ready and nothing under way.
pub(crate) async fn settled(client: &Client, namespace: &str, name: &str) -> NatsShard {
    let api: Api<NatsShard> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{name} settled"), || async {
        let shard = api.get(name).await.unwrap();
        let status = shard.status.clone().unwrap_or_default();
        let is = |kind: &str, wanted| {
            status
                .conditions
                .iter()
                .any(|c| c.kind == kind && c.status == wanted)
        };
        let current = status.observed_generation == shard.metadata.generation;
        let settled =
            is("Ready", ConditionStatus::True) && is("Reconciling", ConditionStatus::False);
        (current && settled).then_some(shard)
    })
    .await
}

pub(crate) async fn pods(client: &Client, namespace: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.list(&ListParams::default()).await.unwrap().items
}

/// In how many different places, by a label of their hosts, the pods lie.
async fn places(client: &Client, namespace: &str, label: &str) -> usize {
    let hosts: Api<Node> = Api::all(client.clone());
    let mut places = BTreeSet::new();
    for pod in pods(client, namespace).await {
        let host = pod.spec.and_then(|spec| spec.node_name).unwrap();
        places.insert(hosts.get(&host).await.unwrap().labels()[label].clone());
    }
    places.len()
}

pub(crate) async fn change(client: &Client, namespace: &str, name: &str, spec: Value) {
    let api: Api<NatsShard> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({ "spec": spec }));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_shard_comes_up_with_all_its_objects_and_scales() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({})).await;
    let shard = settled(&client, &namespace, "line").await;
    insta::assert_yaml_snapshot!(names(&objects(&client, &namespace).await), @r"
    - PodDisruptionBudget/line
    - Secret/line-files
    - Secret/line-nats-auth
    - Service/line
    - Service/line-client
    - ServiceAccount/line
    - StatefulSet/line
    ");
    assert_eq!(pods(&client, &namespace).await.len(), 3);
    assert_eq!(
        places(&client, &namespace, "kubernetes.io/hostname").await,
        3
    );
    assert_eq!(
        shard.status.unwrap().urls[0],
        format!("nats://line-0.line.{namespace}.svc:4222")
    );

    for nodes in [4, 2] {
        change(&client, &namespace, "line", json!({ "nodes": nodes })).await;
        let shard = settled(&client, &namespace, "line").await;
        assert_eq!(shard.status.unwrap().ready_nodes, nodes);
        assert_eq!(pods(&client, &namespace).await.len(), usize::from(nodes));
    }
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn nodes_lie_apart_as_asked_and_wait_where_they_cannot() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    let zone = "topology.kubernetes.io/zone";
    let spread = json!({"topologyKey": zone, "mode": "Required"});
    create(
        &client,
        &namespace,
        "line",
        json!({"nodes": 3, "spread": spread}),
    )
    .await;
    settled(&client, &namespace, "line").await;
    assert_eq!(places(&client, &namespace, zone).await, 3);

    // There are five hosts in three zones.
    create(
        &client,
        &namespace,
        "wide",
        json!({"nodes": 4, "spread": spread}),
    )
    .await;
    let api: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    eventually("a clear word about the node that has no place", || async {
        let status = api.get("wide").await.unwrap().status?;
        let mut open = status.conditions.iter().filter(|c| c.kind == "Reconciling");
        open.find(|c| c.message.contains("anti-affinity"))
            .map(|c| c.message.clone())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn a_change_rolls_one_node_at_a_time() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({})).await;
    settled(&client, &namespace, "line").await;
    let before: BTreeSet<_> = pods(&client, &namespace)
        .await
        .iter()
        .map(|p| p.uid())
        .collect();

    let resources = json!({"requests": {"cpu": "10m"}});
    change(
        &client,
        &namespace,
        "line",
        json!({ "resources": resources }),
    )
    .await;
    eventually("every node replaced", || async {
        let now = pods(&client, &namespace).await;
        let ready = now.iter().filter(|pod| is_ready(pod)).count();
        assert!(ready >= 2, "two nodes are away at a time");
        let all_new = now.iter().all(|pod| !before.contains(&pod.uid()));
        (all_new && ready == 3).then_some(())
    })
    .await;
    settled(&client, &namespace, "line").await;
    operator.stop().await;
    done(&client, &namespace).await;
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready =
        |c: &k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
    conditions.is_some_and(|all| all.iter().any(ready)) && pod.metadata.deletion_timestamp.is_none()
}

#[tokio::test]
async fn what_others_made_is_never_taken_over() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let theirs: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let service = json!({"metadata": {"name": "line-client"}, "spec": {"ports": [{"port": 80}]}});
    let service: Service = serde_json::from_value(service).unwrap();
    let before = theirs
        .create(&PostParams::default(), &service)
        .await
        .unwrap();

    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({})).await;
    let stalled = until(&client, &namespace, "line", "Stalled").await;
    assert_eq!(stalled.reason, "NameConflict");
    assert!(
        stalled.message.contains("line-client (Service)"),
        "{}",
        stalled.message
    );
    assert_eq!(theirs.get("line-client").await.unwrap(), before);

    theirs
        .delete("line-client", &DeleteParams::default())
        .await
        .unwrap();
    settled(&client, &namespace, "line").await;
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn a_paused_shard_is_left_as_it_is() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({})).await;
    settled(&client, &namespace, "line").await;
    change(
        &client,
        &namespace,
        "line",
        json!({"paused": true, "nodes": 5}),
    )
    .await;
    let paused = until(&client, &namespace, "line", "Reconciling").await;
    assert_eq!(paused.reason, "Paused");
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let replicas = |set: StatefulSet| set.spec.and_then(|spec| spec.replicas);
    assert_eq!(replicas(sets.get("line").await.unwrap()), Some(3));
    change(&client, &namespace, "line", json!({"paused": false})).await;
    settled(&client, &namespace, "line").await;
    assert_eq!(replicas(sets.get("line").await.unwrap()), Some(5));
    operator.stop().await;
    done(&client, &namespace).await;
}

#[tokio::test]
async fn what_is_no_longer_asked_for_goes() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    create(&client, &namespace, "line", json!({})).await;
    let shard = settled(&client, &namespace, "line").await;
    let stale = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}, "metadata": {
        "name": "stale",
        "labels": {"fanout.openfactory.io/workload": "line", "app.kubernetes.io/name": "nats-shard"},
        "ownerReferences": [{"apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "NatsShard",
            "name": "line", "uid": shard.uid().unwrap(), "controller": true}],
    }});
    let services = api::<Service>(&client, &namespace);
    services
        .create(
            &PostParams::default(),
            &serde_json::from_value(stale).unwrap(),
        )
        .await
        .unwrap();
    eventually("pruned", || async {
        services
            .get_opt("stale")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
