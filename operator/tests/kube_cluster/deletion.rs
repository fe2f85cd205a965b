//! Deletion: a shard that still owns assets stays, and nothing is left of what goes.

use kube::api::{Api, DeleteParams};
use ofa_crds::api::{ForwarderPool, NatsShard};
use serde_json::json;

use crate::cluster::{client, done, eventually, names, namespace, objects};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::{pool, shard};

#[tokio::test]
async fn a_shard_goes_only_when_no_map_gives_it_assets_any_more() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let operator = Operator::start(&client, &namespace, &kafka);
    shard::create(&client, &namespace, "line", json!({})).await;
    pool::create(&client, &namespace, "pool", json!({})).await;
    pool::settled(&client, &namespace, "pool").await;

    let shards: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    let pools: Api<ForwarderPool> = Api::namespaced(client.clone(), &namespace);
    shards
        .delete("line", &DeleteParams::default())
        .await
        .unwrap();
    eventually("a word about why it stays", || async {
        let status = shards.get("line").await.unwrap().status?;
        let refused = status
            .conditions
            .into_iter()
            .find(|c| c.kind == "DeletionRefused")?;
        refused.message.contains("still has assets").then_some(())
    })
    .await;
    assert_eq!(
        shard::pods(&client, &namespace).await.len(),
        5,
        "it goes on serving"
    );

    pools
        .delete("pool", &DeleteParams::default())
        .await
        .unwrap();
    eventually("both gone", || async {
        let gone = shards.get_opt("line").await.unwrap().is_none()
            && pools.get_opt("pool").await.unwrap().is_none();
        gone.then_some(())
    })
    .await;
    assert_eq!(kafka.map(&format!("{namespace}.pool")), None);
    assert_eq!(
        names(&objects(&client, &namespace).await),
        Vec::<String>::new()
    );
    assert!(shard::pods(&client, &namespace).await.is_empty());
    operator.stop().await;
    done(&client, &namespace).await;
}

/// As Argo CD deletes, and `kubectl delete --cascade=foreground`: Kubernetes then takes away first what belongs to a
/// resource, where it is told that this holds up the deletion.
#[tokio::test]
async fn a_shard_that_still_owns_assets_keeps_its_nodes_whichever_way_it_is_deleted() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    shard::create(&client, &namespace, "line", json!({"nodes": 2})).await;
    pool::create(&client, &namespace, "pool", json!({})).await;
    pool::settled(&client, &namespace, "pool").await;
    let before = shard::pods(&client, &namespace).await;

    let shards: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    let foreground = DeleteParams::foreground();
    shards.delete("line", &foreground).await.unwrap();
    eventually("Kubernetes has done its part", || async {
        let finalizers = shards.get("line").await.unwrap().metadata.finalizers;
        let waits = finalizers
            .unwrap()
            .contains(&"foregroundDeletion".to_owned());
        (!waits).then_some(())
    })
    .await;
    let uids = |pods: Vec<k8s_openapi::api::core::v1::Pod>| -> Vec<_> {
        let nodes = pods.into_iter().filter(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            name.starts_with("line-") && pod.metadata.deletion_timestamp.is_none()
        });
        nodes.map(|pod| pod.metadata.uid).collect()
    };
    assert_eq!(uids(shard::pods(&client, &namespace).await), uids(before));
    let pools: Api<ForwarderPool> = Api::namespaced(client.clone(), &namespace);
    let params = DeleteParams::default();
    pools.delete("pool", &params).await.unwrap();
    eventually("both gone", || async {
        let gone = shards.get_opt("line").await.unwrap().is_none()
            && pools.get_opt("pool").await.unwrap().is_none();
        gone.then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
