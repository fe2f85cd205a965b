//! Two operators, one of which acts.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use ofa_operator::kube::lease::Timing;
use serde_json::json;

use crate::cluster::{client, done, eventually, metered, namespace};
use crate::kafka::Kafka;
use crate::meter::Meter;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::shard;

/// Quick enough for a test, slow enough for a busy machine.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(4),
    renew_deadline: Duration::from_secs(3),
    retry: Duration::from_millis(300),
};

async fn leader(client: &Client, namespace: &str, name: &str) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{name} leads"), || async {
        let lease = leases.get_opt("operator").await.unwrap()?;
        (lease.spec?.holder_identity.as_deref() == Some(name)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_operator_acts_and_another_takes_over() {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let kafka = Kafka::new(&client);
    let start = |name: &'static str| {
        let meter = Meter::unlimited();
        let candidate = Some((name, TIMING));
        let operator = Operator::start_with(&metered(&meter), &namespace, &kafka, candidate);
        (operator, meter)
    };
    let (first, _) = start("first");
    leader(&client, &namespace, "first").await;
    let (second, idle) = start("second");
    shard::create(&client, &namespace, "line", json!({"nodes": 1})).await;
    shard::settled(&client, &namespace, "line").await;
    assert_eq!(idle.writes(), 0, "two operators act");

    // One that ends in peace gives the lease back; one that is killed is waited for.
    first.stop().await;
    leader(&client, &namespace, "second").await;
    shard::change(&client, &namespace, "line", json!({"nodes": 2})).await;
    shard::settled(&client, &namespace, "line").await;
    assert!(idle.writes() > 0, "the second one does not act");

    let (third, _) = start("third");
    second.kill().await;
    leader(&client, &namespace, "third").await;
    shard::change(&client, &namespace, "line", json!({"nodes": 3})).await;
    shard::settled(&client, &namespace, "line").await;
    third.stop().await;
    done(&client, &namespace).await;
}
