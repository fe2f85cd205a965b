//! Where nothing changes nothing is written.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::{Client, ResourceExt as _};
use ofa_crds::api::{ForwarderPool, NatsShard};
use serde_json::json;

use crate::cluster::{client, done, metered, names, namespace, objects};
use crate::kafka::Kafka;
use crate::meter::Meter;
use crate::nodes::Nodes;
use crate::operator::{Operator, once, shell};
use crate::{pool, shard};

async fn versions(client: &Client, namespace: &str) -> BTreeMap<String, Option<String>> {
    let all = objects(client, namespace).await;
    let versions = all.iter().map(kube::ResourceExt::resource_version);
    let named: Vec<String> = all
        .iter()
        .map(|o| names(std::slice::from_ref(o)).remove(0))
        .collect();
    named.into_iter().zip(versions).collect()
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let meter = Meter::unlimited();
    let operator = Operator::start(&metered(&meter), &namespace, &kafka);
    shard::create(
        &client,
        &namespace,
        "line",
        json!({"resources": {"limits": {"cpu": "1000m"}}}),
    )
    .await;
    pool::create(&client, &namespace, "pool", json!({})).await;
    let shard = shard::settled(&client, &namespace, "line").await;
    let pool = pool::settled(&client, &namespace, "pool").await;
    // What is still on its way arrives: the last change of a pod calls up a last look.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, writes) = (versions(&client, &namespace).await, meter.writes());
    assert!(writes > 10, "the meter does not count");

    tokio::time::sleep(Duration::from_secs(3)).await;
    // A look at everything, as at the resync.
    let again = shell(&metered(&meter), &namespace, &kafka);
    for _ in 0..3 {
        once::<NatsShard>(&again, &client, &namespace, "line")
            .await
            .unwrap();
        once::<ForwarderPool>(&again, &client, &namespace, "pool")
            .await
            .unwrap();
    }
    assert_eq!(meter.writes(), writes, "writes while nothing changes");
    assert_eq!(versions(&client, &namespace).await, before);
    let version = |shard: NatsShard| shard.resource_version();
    assert_eq!(
        version(shard::settled(&client, &namespace, "line").await),
        version(shard)
    );
    let again = pool::settled(&client, &namespace, "pool").await;
    assert_eq!(again.resource_version(), pool.resource_version());

    // An operator that starts anew finds everything in order.
    operator.stop().await;
    let next = Meter::unlimited();
    let operator = Operator::start(&metered(&next), &namespace, &kafka);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(next.writes(), 0, "a new operator writes");
    operator.stop().await;
    done(&client, &namespace).await;
}
