//! What is built for every example and option, object by object.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../changes/mod.rs"]
mod changes;
mod objects;

use std::path::PathBuf;

use ofa_crds::api::{ForwarderPool, NatsShard, NatsShardStatus};
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::{ShardAccess, ShardAccessFile};
use ofa_operator::controllers::asset_group::{build as group_build, validate as group_validate};
use ofa_operator::controllers::forwarder_pool::{
    build as pool_build, map, validate as pool_validate,
};
use ofa_operator::controllers::nats_shard::credentials::Credentials;
use ofa_operator::controllers::nats_shard::{
    build as shard_build, conf, validate as shard_validate,
};
use ofa_operator::controllers::{KsqlDbSettings, Settings};
use ofa_operator::plain::{Plain, Service, workload};
use ofa_operator::platform::{EnvVar, Workload};
use ofa_operator::resources::{Document, Manifest, parse_file};

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn parse(text: &str) -> Vec<Manifest> {
    let parsed = parse_file("test.yaml", text).into_iter();
    parsed
        .map(|document| document.map(|Document { manifest, .. }| manifest).unwrap())
        .collect()
}

fn example(path: &str) -> Vec<Manifest> {
    parse(&std::fs::read_to_string(examples().join(path)).unwrap())
}

fn settings() -> Settings {
    Settings {
        kafka: KafkaSettings::plain("default:9092"),
        control_topic: "ofa_shard_map".to_owned(),
        forwarder_image: "openfactory-fanout/forwarder:1.2.3".to_owned(),
        serving_image: "openfactory-fanout/serving:1.2.3".to_owned(),
        ksqldb: KsqlDbSettings::default(),
    }
}

fn credentials() -> Credentials {
    Credentials {
        forwarder: "FFFF".to_owned(),
        client: "CCCC".to_owned(),
        route: "RRRR".to_owned(),
        operator: "OOOO".to_owned(),
    }
}

fn shard(manifest: &Manifest) -> (shard_validate::ValidShard, Vec<String>) {
    let Manifest::NatsShard(shard) = manifest else {
        panic!("{manifest:?}");
    };
    let valid = shard_validate::validate(shard).unwrap();
    let hosts = (0..valid.nodes)
        .map(|n| format!("{}-{n}.example", valid.identity.name))
        .collect();
    (valid, hosts)
}

fn pool(manifest: &Manifest, shards: &[NatsShard]) -> Workload {
    let Manifest::ForwarderPool(pool) = manifest else {
        panic!("{manifest:?}");
    };
    let pool: &ForwarderPool = pool;
    let valid = pool_validate::validate(pool, &settings()).unwrap();
    let selected = map::select(shards, &valid.identity.namespace, &valid.shard_labels);
    let access = selected.iter().filter_map(|candidate| {
        let access = ShardAccess {
            username: "forwarder".to_owned(),
            password: "FFFF".to_owned(),
            ca_certificate: candidate.tls_secret.as_ref().map(|_| "PEM".to_owned()),
        };
        Some((candidate.shard.as_ref()?.name.clone(), access))
    });
    let access = ShardAccessFile(access.collect());
    pool_build::build(&valid, &selected, &access, &settings(), true)
}

fn plain(manifests: &[Manifest], name: &str) -> Workload {
    let services = manifests.iter().filter_map(|m| match m {
        Manifest::Service(service) => Some(service.as_ref()),
        _ => None,
    });
    let services: Vec<&Service> = services.collect();
    let found = manifests.iter().find_map(|manifest| match manifest {
        Manifest::Deployment(d) if manifest.key().name == name => Some(Plain::Deployment(d)),
        Manifest::StatefulSet(s) if manifest.key().name == name => Some(Plain::StatefulSet(s)),
        _ => None,
    });
    workload(found.unwrap(), &services).unwrap()
}

/// A shard as its controller leaves it.
fn known(manifest: &Manifest) -> NatsShard {
    let (valid, hosts) = shard(manifest);
    let Manifest::NatsShard(shard) = manifest else {
        panic!("{manifest:?}");
    };
    let mut shard = shard.as_ref().clone();
    shard.status = Some(NatsShardStatus {
        cluster_name: Some(valid.ring_name.to_string()),
        urls: shard_build::urls(&valid, &hosts),
        ..NatsShardStatus::default()
    });
    shard
}

#[test]
fn the_factory() {
    let shards = example("factory/shards.yaml");
    let (line, hosts) = shard(&shards[0]);
    insta::assert_yaml_snapshot!(
        "factory_shard",
        shard_build::build(&line, &conf::Conf::of(&line, &hosts, &credentials()))
    );
    insta::assert_snapshot!(
        "factory_nats_conf",
        conf::Conf::of(&line, &hosts, &credentials()).text
    );
    let known: Vec<NatsShard> = shards.iter().map(known).collect();
    insta::assert_yaml_snapshot!(
        "factory_pool",
        pool(&example("factory/pool.yaml")[0], &known)
    );
    insta::assert_yaml_snapshot!(
        "factory_kafka",
        plain(&example("factory/kafka.yaml"), "kafka")
    );
    insta::assert_yaml_snapshot!(
        "factory_router",
        plain(&example("factory/router.yaml"), "router")
    );
    insta::assert_yaml_snapshot!(
        "factory_simulator",
        plain(&example("factory/simulator.yaml"), "simulator")
    );
}

#[test]
fn the_factory_on_a_swarm_asks_for_nothing_that_a_swarm_cannot_do() {
    let shards = example("swarm/resources/shards.yaml");
    let known: Vec<NatsShard> = shards.iter().map(known).collect();
    let nodes = shards.iter().map(|manifest| {
        let (valid, hosts) = shard(manifest);
        shard_build::build(&valid, &conf::Conf::of(&valid, &hosts, &credentials()))
    });
    let mut all: Vec<Workload> = nodes.collect();
    all.push(pool(&example("swarm/resources/pool.yaml")[0], &known));
    for name in ["router", "replay"] {
        let file = format!("swarm/resources/{name}.yaml");
        all.push(plain(&example(&file), name));
    }
    for workload in &all {
        ofa_operator::platform::swarm::check(workload).unwrap();
    }
    // What only Kubernetes and processes can do is told.
    let refused = plain(&example("factory/kafka.yaml"), "kafka");
    assert!(ofa_operator::platform::swarm::check(&refused).is_err());
}

#[test]
fn the_smallest_of_each_kind() {
    let smallest = example("natsshard.yaml");
    let (valid, hosts) = shard(&smallest[0]);
    assert_eq!(hosts.len(), 3);
    insta::assert_yaml_snapshot!(
        "smallest_shard",
        shard_build::build(&valid, &conf::Conf::of(&valid, &hosts, &credentials()))
    );
    insta::assert_yaml_snapshot!(
        "smallest_pool",
        pool(&example("forwarderpool.yaml")[0], &[known(&smallest[0])])
    );
    assert!(matches!(
        example("assetgroup.yaml")[..],
        [Manifest::AssetGroup(_)]
    ));
}

#[test]
fn a_shard_with_every_option() {
    let manifests = parse(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: full, namespace: plant}\n\
         spec:\n  clusterName: C1\n  nodes: 2\n  version: 2.12.7\n  image: registry.example/nats:custom\n  \
         config: {maxPayload: 4096, maxPending: 65536, maxConnections: 10, lameDuckSeconds: 45}\n  \
         clientUrls: [\"nats://outside:4222\"]\n  auth: {anonymousClients: false}\n  tls: {secretName: nats-tls}\n  \
         resources: {requests: {cpu: 100m}, limits: {memory: 64Mi}}\n  \
         spread: {topologyKey: zone, mode: Required}\n",
    );
    let (valid, hosts) = shard(&manifests[0]);
    insta::assert_yaml_snapshot!(
        "full_shard",
        shard_build::build(&valid, &conf::Conf::of(&valid, &hosts, &credentials()))
    );
    insta::assert_snapshot!(
        "full_nats_conf",
        conf::Conf::of(&valid, &hosts, &credentials()).text
    );
    let known = [known(&manifests[0])];
    let selected = map::select(&known, "plant", &Default::default());
    insta::assert_json_snapshot!("full_shard_for_pools", selected[0].shard);
}

#[test]
fn a_pool_with_every_option() {
    let shards = parse(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: a, labels: {line: \"1\"}}\n\
         spec: {nodes: 1, tls: {secretName: nats-tls}}\n---\n\
         apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: other}\nspec: {nodes: 1}\n",
    );
    let known: Vec<NatsShard> = shards.iter().map(known).collect();
    let manifests = parse(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: ForwarderPool\nmetadata: {name: full}\n\
         spec:\n  source: {topic: events, start: Latest}\n  \
         kafka:\n    bootstrapServers: k1:9093,k2:9093\n    tls: {secretName: kafka-tls}\n    \
         sasl: {mechanism: SCRAM-SHA-512, secretName: kafka-user}\n  \
         consumerGroup: mine\n  groupProtocol: Consumer\n  shardSelector: {matchLabels: {line: \"1\"}}\n  hashRingReplicas: 64\n  replicas: 5\n  \
         payload: Verbatim\n  deadLetterTopic: dead\n  image: registry.example/forwarder:x\n",
    );
    insta::assert_yaml_snapshot!("full_pool", pool(&manifests[0], &known));
}

#[test]
fn a_native_group_with_every_option() {
    let manifests = parse(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: AssetGroup\nmetadata: {name: halls, namespace: plant}\n\
         spec:\n  sourceTopic: events\n  kafka: {bootstrapServers: \"k:9092\"}\n  \
         grouping: {level: hall, value: \"-Halle $(3)\"}\n  \
         stream: {engine: Native, partitions: 12, retentionMs: 60000}\n  \
         serving: {resources: {limits: {memory: 64Mi}}, spread: {mode: Required}}\n",
    );
    let Manifest::AssetGroup(group) = &manifests[0] else {
        panic!("{manifests:?}");
    };
    let valid = group_validate::validate(group, &settings()).unwrap();
    let built = group_build::build(&valid, &settings(), false);
    // A value is taken by the letter, whatever the platform would make of it.
    assert_eq!(built.args, ["derive", "--value=-Halle $$(3)"]);
    for (name, value) in [
        ("KAFKA_BROKER", "k:9092"),
        ("KAFKA_TOPIC", "events"),
        ("GROUPING_LEVEL", "hall"),
        ("DERIVED_PARTITIONS", "12"),
        ("DERIVED_RETENTION_MS", "60000"),
    ] {
        let wanted = EnvVar::text(name, value);
        assert!(built.env.contains(&wanted), "{wanted:?} in {:?}", built.env);
    }
    assert_eq!(
        (built.image.as_str(), built.replicas),
        ("openfactory-fanout/forwarder:1.2.3", 2)
    );
    assert_eq!(built.resources.limits["memory"], "64Mi");
}

#[test]
fn plain_manifests_are_refused_by_the_field() {
    let refusal = |text: &str| {
        let manifests = parse(text);
        let Manifest::Deployment(deployment) = &manifests[0] else {
            panic!("{manifests:?}");
        };
        workload(Plain::Deployment(deployment), &[])
            .unwrap_err()
            .to_string()
    };
    let deployment = |spec: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec:\n  \
             selector: {{matchLabels: {{app: a}}}}\n  template:\n    metadata: {{labels: {{app: a}}}}\n    spec: {spec}\n"
        )
    };
    insta::assert_yaml_snapshot!([
        refusal(&deployment("{containers: []}")),
        refusal(&deployment(
            "{enableServiceLinks: true, containers: [{name: a, image: a}]}"
        )),
        refusal(&deployment(
            "{containers: [{name: a, image: a, volumeMounts: [{name: x, mountPath: /x}]}]}"
        )),
        refusal(&deployment(
            "{containers: [{name: a, image: a, env: [{name: A, valueFrom: {}}]}]}"
        )),
        refusal(&deployment(
            "{containers: [{name: a, image: a, readinessProbe: {}}]}"
        )),
        refusal(&deployment(
            "{containers: [{name: a, image: a, readinessProbe: {httpGet: {port: web}}}]}"
        )),
    ]);
}
