//! Every object of Kubernetes for every example, and what each option of a resource changes of them.

use std::collections::BTreeMap;

use ofa_crds::GroupName;
use ofa_crds::api::NatsShard;
use ofa_operator::controllers::asset_group::{build, build_service, validate};
use ofa_operator::controllers::nats_shard::{build as shard_build, conf};
use ofa_operator::platform::Workload;
use ofa_operator::platform::kubernetes::objects::{Object, objects};
use ofa_operator::resources::Manifest;
use serde_json::{Value, json};

use crate::changes::changed_lines;
use crate::{credentials, example, known, parse, pool, settings, shard};

/// A resource as the API server keeps it: with a unique id.
fn stored(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    let meta = match &mut manifest {
        Manifest::NatsShard(shard) => &mut shard.metadata,
        Manifest::ForwarderPool(pool) => &mut pool.metadata,
        Manifest::AssetGroup(group) => &mut group.metadata,
        other => panic!("{other:?}"),
    };
    meta.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    manifest
}

/// What runs for a resource; `others` are shards and a plant's group that it may have to do with.
fn workloads(manifest: &Manifest, shards: &[NatsShard]) -> Vec<Workload> {
    let manifest = stored(manifest);
    match &manifest {
        Manifest::NatsShard(_) => {
            let (valid, hosts) = shard(&manifest);
            let conf = conf::Conf::of(&valid, &hosts, &credentials());
            vec![shard_build::build(&valid, &conf)]
        }
        Manifest::ForwarderPool(_) => vec![pool(&manifest, shards)],
        Manifest::AssetGroup(group) => {
            let settings = settings();
            let valid = validate::validate(group, &settings).unwrap();
            let name: GroupName = "Weld".parse().unwrap();
            let one = valid.group(valid.value.as_ref().unwrap_or(&name), 1);
            let replicas = valid.serving.replicas;
            let service = build_service::build(&valid, &one, replicas, &settings, true);
            match valid.engine {
                validate::Engine::Native => vec![build::build(&valid, &settings, true), service],
                validate::Engine::KsqlDb(_) => vec![service],
            }
        }
        other => panic!("{other:?}"),
    }
}

fn all_objects(manifests: &[Manifest]) -> Vec<Object> {
    let shards = manifests
        .iter()
        .filter(|m| matches!(m, Manifest::NatsShard(_)));
    let shards: Vec<NatsShard> = shards.map(known).collect();
    let workloads = manifests.iter().flat_map(|m| workloads(m, &shards));
    workloads
        .flat_map(|workload| objects(&workload, "of the secrets").unwrap())
        .collect()
}

/// What is not for everybody's eyes is shown as it is: these are no secrets of anybody.
fn readable(object: &Object) -> Value {
    let mut value = object.value.clone();
    if let Some(data) = value.get_mut("data").and_then(Value::as_object_mut) {
        for text in data.values_mut() {
            let bytes: k8s_openapi::ByteString = serde_json::from_value(text.clone()).unwrap();
            *text = String::from_utf8(bytes.0).unwrap().into();
        }
    }
    value
}

/// As many documents of YAML.
fn rendered(objects: &[Object]) -> String {
    let one = |object: &Object| serde_saphyr::to_string(&readable(object)).unwrap();
    let all: Vec<String> = objects.iter().map(one).collect();
    all.join("---\n")
}

#[test]
fn of_every_example() {
    insta::assert_snapshot!(
        "smallest_shard",
        rendered(&all_objects(&example("natsshard.yaml")))
    );
    insta::assert_snapshot!(
        "smallest_pool",
        rendered(&all_objects(&example("forwarderpool.yaml")))
    );
    insta::assert_snapshot!(
        "smallest_group",
        rendered(&all_objects(&example("assetgroup.yaml")))
    );
    for (folder, files) in [
        ("factory", &["shards", "pool", "groups"][..]),
        ("swarm/resources", &["shards", "pool"]),
        (
            "group-over-nats",
            &["machining-shards", "machining-pool", "machining-group"],
        ),
    ] {
        let files = files
            .iter()
            .flat_map(|file| example(&format!("{folder}/{file}.yaml")));
        let manifests: Vec<Manifest> = files.collect();
        let name = folder.split('/').next().unwrap();
        insta::assert_snapshot!(name, rendered(&all_objects(&manifests)));
    }
}

/// The text without the digests in it, which differ with anything and say nothing more.
fn without_digests(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("derive-") {
        let (before, found) = rest.split_at(at + "derive-".len());
        plain.push_str(before);
        rest = found.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    plain + rest
}

/// The lines of each object, by its kind and name.
fn documents(objects: &[Object]) -> BTreeMap<String, Vec<String>> {
    let is_digest = |line: &&str| {
        let annotation = line.contains("openfactory.io/");
        let marks = annotation && (line.contains("chosen:") || line.contains("template:"));
        !(marks || line.contains("server_tags:"))
    };
    let document = |object: &Object| {
        let text = serde_saphyr::to_string(&readable(object)).unwrap();
        let text = without_digests(&text);
        let lines = text.lines().filter(is_digest).map(str::to_owned).collect();
        let name = format!("{} {}", object.resource.kind, object.name);
        (without_digests(&name), lines)
    };
    objects.iter().map(document).collect()
}

fn resource(kind: &str, spec: &Value) -> Vec<Manifest> {
    let resource = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": kind,
        "metadata": {"name": "it", "namespace": "plant"}, "spec": spec,
    });
    let shard = json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "NatsShard",
        "metadata": {"name": "line", "namespace": "plant", "labels": {"line": "1"}}, "spec": {"tls": {"secretName": "line-tls"}},
    });
    let mut all = parse(&resource.to_string());
    if kind == "ForwarderPool" {
        all.extend(parse(&shard.to_string()));
    }
    all
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// What each option changes of the objects of a resource that says nothing but `base`.
fn changes(kind: &str, base: &Value, options: &[(&str, Value)]) -> String {
    let unasked = documents(&all_objects(&resource(kind, base)));
    let mut told = String::new();
    for (what, option) in options {
        let mut spec = base.clone();
        merge(&mut spec, option);
        let asked = documents(&all_objects(&resource(kind, &spec)));
        let before = told.len();
        told.push_str(&format!("# {what}: {option}\n"));
        let header = told.len();
        let none = Vec::new();
        let names: std::collections::BTreeSet<&String> =
            unasked.keys().chain(asked.keys()).collect();
        for name in names {
            let lines = changed_lines(
                unasked.get(name).unwrap_or(&none),
                asked.get(name).unwrap_or(&none),
            );
            if !lines.is_empty() {
                told.push_str(&format!("{name}:\n{}\n", lines.join("\n")));
            }
        }
        if told.len() == header {
            told.push_str("no object\n");
        }
        assert!(told.len() > before);
    }
    told
}

#[test]
fn of_each_option_of_a_shard() {
    let zone = json!({"topologyKey": "topology.kubernetes.io/zone", "mode": "Required"});
    let told = changes(
        "NatsShard",
        &json!({}),
        &[
            ("a name on the ring", json!({"clusterName": "C1"})),
            ("one node", json!({"nodes": 1})),
            ("another version", json!({"version": "2.12.7"})),
            (
                "another image",
                json!({"image": "registry.example/nats:custom"}),
            ),
            ("larger messages", json!({"config": {"maxPayload": 4096}})),
            ("less per client", json!({"config": {"maxPending": 65536}})),
            ("fewer clients", json!({"config": {"maxConnections": 10}})),
            (
                "a longer farewell",
                json!({"config": {"lameDuckSeconds": 45}}),
            ),
            (
                "seen from outside",
                json!({"clientUrls": ["nats://outside:4222"]}),
            ),
            (
                "passwords for all",
                json!({"auth": {"anonymousClients": false}}),
            ),
            ("TLS", json!({"tls": {"secretName": "line-tls"}})),
            (
                "resources",
                json!({"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}),
            ),
            ("apart by zone", json!({"spread": zone})),
            (
                "apart if possible",
                json!({"spread": {"mode": "Preferred"}}),
            ),
            ("paused", json!({"paused": true})),
        ],
    );
    insta::assert_snapshot!(told);
}

#[test]
fn of_each_option_of_a_pool() {
    let sasl = json!({"mechanism": "SCRAM-SHA-512", "secretName": "kafka-user"});
    let told = changes(
        "ForwarderPool",
        &json!({}),
        &[
            ("another topic", json!({"source": {"topic": "events"}})),
            ("from now on", json!({"source": {"start": "Latest"}})),
            (
                "another Kafka",
                json!({"kafka": {"bootstrapServers": "k1:9092,k2:9092"}}),
            ),
            (
                "TLS",
                json!({"kafka": {"bootstrapServers": "k:9093", "tls": {"secretName": "kafka-tls"}}}),
            ),
            (
                "TLS by the system's trust",
                json!({"kafka": {"bootstrapServers": "k:9093", "tls": {}}}),
            ),
            (
                "SASL",
                json!({"kafka": {"bootstrapServers": "k:9093", "sasl": sasl}}),
            ),
            ("another consumer group", json!({"consumerGroup": "mine"})),
            (
                "partitions as the broker tells",
                json!({"groupProtocol": "Consumer"}),
            ),
            (
                "some shards",
                json!({"shardSelector": {"matchLabels": {"line": "2"}}}),
            ),
            ("another ring", json!({"hashRingReplicas": 64})),
            ("more forwarders", json!({"replicas": 5})),
            (
                "by lag",
                json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 6, "targetLag": 100}}),
            ),
            ("payload as it is", json!({"payload": "Verbatim"})),
            ("dead letters", json!({"deadLetterTopic": "dead"})),
            (
                "another image",
                json!({"image": "registry.example/forwarder:x"}),
            ),
            (
                "resources",
                json!({"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}),
            ),
            (
                "on hosts of their own",
                json!({"spread": {"mode": "Required"}}),
            ),
            ("paused", json!({"paused": true})),
        ],
    );
    insta::assert_snapshot!(told);
}

#[test]
fn of_services_that_share_nats() {
    let nats = json!({"routerUrl": "http://router-a:8002", "secretName": "nats-a"});
    let told = changes(
        "AssetGroup",
        &json!({"grouping": {"level": "workcenter", "value": "A"}, "stream": {"engine": "Native"}}),
        &[
            ("several", json!({"serving": {"replicas": 2, "nats": nats}})),
            ("one reads the topic", json!({"serving": {"nats": nats}})),
        ],
    );
    insta::assert_snapshot!(told);
}

#[test]
fn of_each_option_of_a_group() {
    let sasl = json!({"mechanism": "SCRAM-SHA-512", "secretName": "kafka-user"});
    let told = changes(
        "AssetGroup",
        &json!({"grouping": {"level": "workcenter"}, "stream": {"engine": "Native"}}),
        &[
            (
                "by ksqlDB",
                json!({"stream": {"engine": "ksqlDB"}, "ksqldb": {"url": "http://k:8088"}}),
            ),
            ("another topic", json!({"sourceTopic": "events"})),
            ("another map", json!({"unsMapTopic": "map"})),
            ("another level", json!({"grouping": {"level": "line"}})),
            ("one group", json!({"grouping": {"value": "Hall $(3)"}})),
            (
                "one group's topic",
                json!({"grouping": {"value": "A"}, "stream": {"topic": "mine"}}),
            ),
            ("partitions", json!({"stream": {"partitions": 12}})),
            ("retention", json!({"stream": {"retentionMs": 60000}})),
            (
                "topics go too",
                json!({"stream": {"deletionPolicy": "Delete"}}),
            ),
            (
                "TLS",
                json!({"kafka": {"bootstrapServers": "k:9093", "tls": {"secretName": "kafka-tls"}}}),
            ),
            (
                "SASL",
                json!({"kafka": {"bootstrapServers": "k:9093", "sasl": sasl}}),
            ),
            ("more of each service", json!({"serving": {"replicas": 2}})),
            ("no services", json!({"serving": {"replicas": 0}})),
            (
                "asleep until asked for",
                json!({"serving": {"activation": "OnDemand", "idleSeconds": 60}}),
            ),
            (
                "another image",
                json!({"serving": {"image": "registry.example/serving:x"}}),
            ),
            (
                "resources",
                json!({"serving": {"resources": {"limits": {"memory": "64Mi"}}}}),
            ),
            (
                "on hosts of their own",
                json!({"serving": {"spread": {"mode": "Required"}}}),
            ),
            ("paused", json!({"paused": true})),
        ],
    );
    insta::assert_snapshot!(told);
}
