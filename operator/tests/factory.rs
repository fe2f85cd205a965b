//! `operator run --platform local` with real NATS nodes and a real Kafka broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod system;

use std::time::{Duration, Instant};

use ofa_crds::ShardMap;
use ofa_crds::kafka::{ControlTopic, KafkaSettings};
use system::{Operator, condition, is_settled, object, processes};

fn shard(name: &str, nodes: u16, more: &str) -> String {
    format!(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\n\
         metadata: {{name: {name}, labels: {{line: {name}, plant: p}}}}\nspec: {{nodes: {nodes}{more}}}\n"
    )
}

#[test]
fn a_shard_runs_survives_its_operator_and_goes() {
    let mut operator = Operator::new();
    operator.write("a.yaml", &shard("a", 2, ""));
    operator.start();
    operator.wait("ready", |status| is_settled(status, "NatsShard", "a"));
    let before = processes(&operator.status());
    assert_eq!(before.len(), 2);

    operator.end("KILL");
    operator.start();
    std::thread::sleep(Duration::from_secs(2));
    operator.wait("ready again", |status| is_settled(status, "NatsShard", "a"));
    assert_eq!(
        processes(&operator.status()),
        before,
        "a killed operator's successor restarts nothing"
    );

    // A node that is killed comes back, the other one stays.
    let killed = &before["a-0"];
    assert!(
        std::process::Command::new("kill")
            .args(["-KILL", killed])
            .status()
            .unwrap()
            .success()
    );
    operator.wait("healed", |status| {
        let now = processes(status);
        (now.get("a-0")? != killed).then_some(())?;
        is_settled(status, "NatsShard", "a")
    });
    assert_eq!(processes(&operator.status())["a-1"], before["a-1"]);

    operator.end("TERM");
    assert_eq!(operator.left_behind(), Vec::<String>::new());
}

#[test]
fn a_changed_configuration_rolls_node_by_node_and_a_bad_one_changes_nothing() {
    let mut operator = Operator::new();
    operator.write("a.yaml", &shard("a", 2, ""));
    operator.start();
    operator.wait("ready", |status| is_settled(status, "NatsShard", "a"));
    let before = processes(&operator.status());

    operator.write("a.yaml", &shard("a", 2, ", config: {maxPayload: nonsense}"));
    let problem = operator.wait("reported", |status| {
        status["problems"][0]["reason"].as_str().map(str::to_owned)
    });
    assert!(!problem.is_empty());
    assert_eq!(processes(&operator.status()), before);

    operator.write("a.yaml", &shard("a", 2, ", config: {maxPayload: 4096}"));
    operator.wait("rolled", |status| {
        let now = processes(status);
        before
            .iter()
            .all(|(name, old)| now.get(name).is_some_and(|new| new != old))
            .then_some(())?;
        is_settled(status, "NatsShard", "a")
    });
    let log = operator.log();
    let at = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("no '{text}' in {log}"))
    };
    assert!(at("a-1 restarts with the changed") < at("a-0 restarts with the changed"));

    operator.write("a.yaml", &shard("a", 2, ", version: 2.10.0"));
    let refusal = operator.wait("refused", |status| {
        let (status, _, message) = condition(object(status, "NatsShard", "a")?, "Stalled")?;
        (status == "True").then(|| message.to_owned())
    });
    assert!(refusal.contains("2.12.7"), "{refusal}");

    operator.remove("a.yaml");
    operator.wait("gone", |status| {
        status["items"].as_array()?.is_empty().then_some(())
    });
    assert_eq!(operator.left_behind(), Vec::<String>::new());
    operator.end("TERM");
}

#[test]
fn a_missing_program_says_what_to_do() {
    let mut operator = Operator::new();
    operator.write(
        "app.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app}\nspec:\n  selector: {matchLabels: {app: a}}\n  \
         template:\n    metadata: {labels: {app: a}}\n    spec:\n      containers: [{name: app, image: x/no-such-program:1}]\n",
    );
    operator.write("a.yaml", &shard("a", 1, ""));
    operator.start();
    let message = operator.wait("stalled", |status| {
        let (status, _, message) = condition(object(status, "Deployment", "app")?, "Stalled")?;
        (status == "True").then(|| message.to_owned())
    });
    assert!(message.contains("no-such-program is missing"), "{message}");
    operator.wait("the others run", |status| {
        is_settled(status, "NatsShard", "a")
    });

    let second = operator.command().output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && said.contains("another operator is using"),
        "{said}"
    );
    operator.end("INT");
    assert_eq!(operator.left_behind(), Vec::<String>::new());
}

const POOL: &str = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: ForwarderPool\nmetadata: {name: pool, namespace: factory}\n\
    spec:\n  kafka: {bootstrapServers: \"kafka:9092\"}\n  shardSelector: {matchLabels: {plant: p}}\n  replicas: 1\n";

fn in_factory(text: &str) -> String {
    text.replace("labels:", "namespace: factory, labels:")
}

/// Follows the control topic as a forwarder does.
struct Follower {
    state: tokio::sync::watch::Receiver<ofa_crds::kafka::ControlState>,
    topic: ControlTopic,
}

impl Follower {
    fn new(brokers: &str) -> Self {
        let topic = ControlTopic::new(
            &KafkaSettings::plain(brokers),
            ofa_crds::control::DEFAULT_TOPIC,
        )
        .unwrap();
        Self {
            state: topic.follow().unwrap(),
            topic,
        }
    }

    fn map(&self, wanted: impl Fn(&ShardMap) -> bool) -> ShardMap {
        let begin = Instant::now();
        loop {
            let map = self.state.borrow().maps.get("factory.pool").cloned();
            match map {
                Some(map) if wanted(&map) => return map.as_ref().clone(),
                other => assert!(begin.elapsed() < Duration::from_secs(60), "{other:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn names(map: &ShardMap) -> Vec<&str> {
    map.shards()
        .iter()
        .map(|shard| shard.name.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_publishes_its_shard_map_and_waits_for_acknowledgements() {
    let mut operator = Operator::new();
    // Stands in for the forwarder: what is tested here is what the operator does.
    operator.program(
        "forwarder",
        "trap 'exit 0' TERM\nwhile :; do sleep 0.1; done",
    );
    let kafka = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/factory/kafka.yaml"
    ));
    operator.write("kafka.yaml", &kafka.unwrap());
    operator.write("a.yaml", &in_factory(&shard("a", 1, "")));
    operator.write("b.yaml", &in_factory(&shard("b", 1, "")));
    operator.write("pool.yaml", POOL);
    operator.start();
    let brokers = operator.wait("Kafka runs", |status| {
        let kafka = object(status, "StatefulSet", "kafka")?;
        (condition(kafka, "Ready")?.0 == "True")
            .then(|| kafka["status"]["addresses"][0].as_str().unwrap().to_owned())
    });
    let follower = Follower::new(&brokers);
    let first = follower.map(|_| true);
    assert_eq!(
        (first.epoch(), names(&first)),
        (1, vec!["a", "b"]),
        "the first map waits for both shards"
    );
    operator.wait("named as unacknowledged", |status| {
        let pool = object(status, "ForwarderPool", "pool")?;
        (pool["status"]["unacknowledged"][0] == "pool-0").then_some(())
    });
    follower
        .topic
        .ack(
            "factory.pool",
            ofa_crds::ControlRole::Forwarder,
            "pool-0",
            1,
        )
        .await
        .unwrap();
    operator.wait("acknowledged", |status| {
        let pool = object(status, "ForwarderPool", "pool")?;
        pool["status"].get("unacknowledged").is_none().then_some(())
    });

    // A shard that still has assets stays.
    operator.remove("b.yaml");
    operator.wait("refused", |status| {
        condition(object(status, "NatsShard", "b")?, "DeletionRefused").map(|_| ())
    });
    assert!(processes(&operator.status()).contains_key("b-0"));

    // Without the pool's label it leaves the map; a new operator goes on with the next epoch.
    operator.end("KILL");
    operator.write(
        "b.yaml",
        &in_factory(&shard("b", 1, "")).replace("plant: p", "plant: other"),
    );
    operator.start();
    let second = follower.map(|map| map.epoch() > 1);
    assert_eq!((second.epoch(), names(&second)), (2, vec!["a"]));
    operator.remove("b.yaml");
    operator.wait("gone", |status| {
        object(status, "NatsShard", "b").is_none().then_some(())
    });

    // Everything at once: Kafka goes last, when the map is withdrawn.
    for file in ["a.yaml", "pool.yaml", "kafka.yaml"] {
        operator.remove(file);
    }
    operator.wait("all gone", |status| {
        status["items"].as_array()?.is_empty().then_some(())
    });
    assert_eq!(operator.left_behind(), Vec::<String>::new());
    operator.end("TERM");
}
