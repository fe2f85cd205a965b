//! `operator run --platform local` with real NATS nodes and a real Kafka broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod system;

use std::time::{Duration, Instant};

use ofa_crds::ShardMap;
use ofa_crds::kafka::{ControlTopic, KafkaSettings};
use ofa_crds::shard_map::HandoverPhase;
use serde_json::Value;
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
fn a_changed_configuration_reaches_node_by_node_and_a_bad_one_changes_nothing() {
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

    let taken_in = |status: &Value| {
        let config = &object(status, "NatsShard", "a")?["status"]["acceptedConfig"]["config"];
        (config["maxPayload"] == 4096).then_some(())?;
        is_settled(status, "NatsShard", "a")
    };
    operator.write("a.yaml", &shard("a", 2, ", config: {maxPayload: 4096}"));
    operator.wait("taken in", taken_in);
    assert_eq!(processes(&operator.status()), before, "restarted");
    let log = operator.log();
    let at = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("no '{text}' in {log}"))
    };
    assert!(at("a-1 has taken in the changed") < at("a-0 has taken in the changed"));

    // This takes a restart.
    let other = ", config: {maxPayload: 4096, maxPending: 1048576}";
    operator.write("a.yaml", &shard("a", 2, other));
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
    assert!(at("a-1 restarts for its changed") < at("a-0 restarts for its changed"));

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

#[test]
fn nothing_outlives_a_parent_that_asks_for_that() {
    let mut operator = Operator::new();
    operator.write("a.yaml", &shard("a", 1, ""));
    let mut parent = operator.start_by_parent();
    operator.wait("ready", |status| is_settled(status, "NatsShard", "a"));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let begin = Instant::now();
    while !operator.left_behind().is_empty() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{}",
            operator.log()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // The state directory is free for the next.
    operator.start();
    operator.wait("ready again", |status| is_settled(status, "NatsShard", "a"));
    operator.end("TERM");
}

fn group(name: &str, grouping: &str) -> String {
    format!(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: AssetGroup\nmetadata: {{name: {name}}}\n\
         spec:\n  grouping: {grouping}\n  stream: {{engine: Native}}\n"
    )
}

#[test]
fn one_program_derives_a_level_and_a_second_that_would_double_it_is_refused() {
    let mut operator = Operator::new();
    operator.program(
        "forwarder",
        "[ \"$1 $GROUPING_LEVEL\" = 'derive workcenter' ] || exit 1\n\
         trap 'exit 0' TERM\nwhile :; do sleep 0.1; done",
    );
    operator.write("all.yaml", &group("all", "{level: workcenter}"));
    operator.start();
    // The services of groups have to wait for a Kafka that is not there.
    let deriving = |status: &serde_json::Value| {
        let mut running = processes(status);
        running.retain(|name, _| name.starts_with("derive-"));
        running
    };
    let running = operator.wait("it runs", |status| {
        let running = deriving(status);
        (running.len() == 2).then_some(running)
    });

    operator.write(
        "one.yaml",
        &group("one", "{level: workcenter, value: Weld}"),
    );
    let why = operator.wait("refused", |status| {
        let (status, reason, message) = condition(object(status, "AssetGroup", "one")?, "Stalled")?;
        (status == "True" && reason == "LevelTaken").then(|| message.to_owned())
    });
    assert!(why.contains("AssetGroup all derives"), "{why}");
    assert_eq!(deriving(&operator.status()), running);

    operator.remove("all.yaml");
    operator.wait("the other takes its place", |status| {
        let now = deriving(status);
        let other = now.len() == 2 && now.keys().all(|name| !running.contains_key(name));
        (other && object(status, "AssetGroup", "all").is_none()).then_some(())
    });
    operator.remove("one.yaml");
    operator.wait("gone", |status| {
        (status["items"].as_array()?.is_empty() && operator.left_behind().is_empty()).then_some(())
    });
    operator.end("TERM");
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

    /// As the one forwarder of the pool does.
    async fn acknowledge(&self, epoch: u64) {
        let role = ofa_crds::ControlRole::Forwarder;
        let acknowledged = self.topic.ack("factory.pool", role, "pool-0", epoch);
        acknowledged.await.unwrap();
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
    follower.acknowledge(1).await;
    operator.wait("acknowledged", |status| {
        let pool = object(status, "ForwarderPool", "pool")?;
        pool["status"].get("unacknowledged").is_none().then_some(())
    });

    // A deleted shard stays until its assets are with the others: step by step, whoever the operator is.
    operator.remove("b.yaml");
    let dual = follower.map(|map| map.epoch() == 2);
    assert_eq!(
        (dual.handover(), names(&dual)),
        (Some(HandoverPhase::DualPublish), vec!["a", "b"])
    );
    operator.wait("refused", |status| {
        condition(object(status, "NatsShard", "b")?, "DeletionRefused").map(|_| ())
    });
    operator.end("KILL");
    operator.start();
    follower.acknowledge(2).await;
    let announced = follower.map(|map| map.epoch() == 3);
    assert_eq!(announced.handover(), Some(HandoverPhase::Announce));
    follower.acknowledge(3).await;
    operator.wait("clients' time to move", |status| {
        let (_, reason, message) =
            condition(object(status, "ForwarderPool", "pool")?, "Reconciling")?;
        (reason == "Resharding" && message.contains("clients are given time")).then_some(())
    });
    assert!(processes(&operator.status()).contains_key("b-0"));
    let done = follower.map(|map| map.epoch() == 4);
    assert_eq!((done.handover(), names(&done)), (None, vec!["a"]));
    follower.acknowledge(4).await;
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
