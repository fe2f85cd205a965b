//! The operator is killed between any two of its requests to the API, one after the other; the next one always gets there.

use futures::StreamExt as _;
use kube::api::{Api, DeleteParams};
use ofa_crds::api::NatsShard;
use serde_json::json;

use crate::cluster::{client, done, eventually, metered, names, namespace, objects};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::{Meter, once, shell};
use crate::shard::create;

/// Lives that are tried at a time: they wait for pods most of their time.
const AT_A_TIME: usize = 6;

/// More requests than a shard takes; a test that gets here would go on for ever.
const ENOUGH: i64 = 200;

fn is_settled(shard: &NatsShard) -> bool {
    use ofa_crds::api::ConditionStatus::{False, True};
    let status = shard.status.clone().unwrap_or_default();
    let is = |kind: &str, wanted| {
        status
            .conditions
            .iter()
            .any(|c| c.kind == kind && c.status == wanted)
    };
    is("Ready", True) && is("Reconciling", False)
}

/// One life and what comes after it; returns whether the life was long enough for everything.
async fn live(budget: i64) -> bool {
    let admin = client();
    let namespace = namespace(&admin).await;
    let _nodes = Nodes::answer(&admin, &namespace);
    create(&admin, &namespace, "line", json!({"nodes": 2})).await;
    let up = bring_up(&admin, &namespace, budget).await;
    let down = bring_down(&admin, &namespace, budget).await;
    done(&admin, &namespace).await;
    up && down
}

async fn bring_up(admin: &kube::Client, namespace: &str, budget: i64) -> bool {
    let kafka = Kafka::new(admin);
    let shards: Api<NatsShard> = Api::namespaced(admin.clone(), namespace);
    let meter = Meter::with_budget(budget);
    let mortal = shell(&metered(&meter), namespace, &kafka);
    while !meter.is_dead() && !is_settled(&shards.get("line").await.unwrap()) {
        let _ = once::<NatsShard>(&mortal, admin, namespace, "line").await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let survived = !meter.is_dead();

    let meter = Meter::unlimited();
    let next = shell(&metered(&meter), namespace, &kafka);
    eventually(
        &format!("settled after a life of {budget} requests"),
        || async {
            once::<NatsShard>(&next, admin, namespace, "line")
                .await
                .unwrap();
            is_settled(&shards.get("line").await.unwrap()).then_some(())
        },
    )
    .await;
    let writes = meter.writes();
    once::<NatsShard>(&next, admin, namespace, "line")
        .await
        .unwrap();
    assert_eq!(
        meter.writes(),
        writes,
        "writes after a life of {budget} requests"
    );
    let expected = [
        "PodDisruptionBudget/line",
        "Secret/line-files",
        "Secret/line-nats-auth",
        "Service/line",
        "Service/line-client",
        "ServiceAccount/line",
        "StatefulSet/line",
    ];
    assert_eq!(
        names(&objects(admin, namespace).await),
        expected,
        "after {budget} requests"
    );
    survived
}

async fn bring_down(admin: &kube::Client, namespace: &str, budget: i64) -> bool {
    let kafka = Kafka::new(admin);
    let shards: Api<NatsShard> = Api::namespaced(admin.clone(), namespace);
    shards
        .delete("line", &DeleteParams::default())
        .await
        .unwrap();
    let meter = Meter::with_budget(budget);
    let mortal = shell(&metered(&meter), namespace, &kafka);
    while !meter.is_dead() && shards.get_opt("line").await.unwrap().is_some() {
        let _ = once::<NatsShard>(&mortal, admin, namespace, "line").await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let survived = !meter.is_dead();
    let next = shell(&admin.clone(), namespace, &kafka);
    eventually(
        &format!("gone after a life of {budget} requests"),
        || async {
            once::<NatsShard>(&next, admin, namespace, "line")
                .await
                .unwrap();
            shards
                .get_opt("line")
                .await
                .unwrap()
                .is_none()
                .then_some(())
        },
    )
    .await;
    assert_eq!(
        names(&objects(admin, namespace).await),
        Vec::<String>::new()
    );
    survived
}

#[tokio::test]
async fn whatever_request_was_the_last_the_next_operator_gets_there() {
    let mut lives = futures::stream::iter(0..ENOUGH)
        .map(live)
        .buffered(AT_A_TIME);
    let mut tried = 0;
    while let Some(complete) = lives.next().await {
        tried += 1;
        if complete {
            break;
        }
    }
    assert!(tried > 20 && tried < ENOUGH, "{tried} lives were tried");
}
