//! The chart as helm renders it: what it refuses, and what each of its values changes.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use crate::changes::changed_lines;
use crate::cluster::program;

pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/openfactory-fanout");

fn helm(arguments: &[&str]) -> Output {
    Command::new(program("helm"))
        .args(arguments)
        .output()
        .unwrap()
}

fn template(values: &[&str]) -> Output {
    let mut arguments = vec!["template", "fan", CHART, "--kube-version", "1.33.0"];
    arguments.extend(["--namespace", "plant", "--set", "crds.install=false"]);
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(&arguments)
}

fn rendered(values: &[&str]) -> String {
    let output = template(values);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{values:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn values_that_the_chart_does_not_know_are_refused() {
    let linted = helm(&["lint", "--strict", CHART]);
    assert!(linted.status.success());
    for (value, word) in [
        ("operator.replica=3", "replica"),
        ("operator.replicas=0", "replicas"),
        ("operator.image.digest=latest", "digest"),
        ("namespaces={Upper}", "namespaces"),
        ("router.image.tag=1", "image"),
        ("replay.payload=Xml", "payload"),
        ("replay.memoryMiB=0", "memoryMiB"),
        ("ksqldb.url=ksqldb:8088", "url"),
        ("kafka.sasl.mechanism=GSSAPI", "mechanism"),
        ("router.limits.connections=0", "connections"),
        (
            "router.groups.redirect=true,router.auth.jwksUrl=http://keys",
            "not both",
        ),
    ] {
        let refused = template(&[value]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && error.contains(word),
            "{value}: {error}"
        );
    }
}

#[test]
fn everything_the_chart_holds_unasked() {
    insta::assert_snapshot!(rendered(&[]));
}

/// The lines of each document, by its kind and name.
fn documents(text: &str) -> BTreeMap<String, Vec<String>> {
    let document = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        let value = |key: &str| {
            let mut found = lines.iter().filter_map(|line| line.strip_prefix(key));
            found.next().unwrap_or_default().to_owned()
        };
        let name = format!("{} {}", value("kind: "), value("  name: "));
        (name + &value("  namespace: "), lines)
    };
    let all = text.split("\n---\n").filter(|text| text.contains("kind:"));
    all.map(document).collect()
}

/// What a value changes, object by object.
fn change(unasked: &BTreeMap<String, Vec<String>>, value: &str) -> String {
    let asked = documents(&rendered(&[value]));
    let none = Vec::new();
    let names: std::collections::BTreeSet<&String> = unasked.keys().chain(asked.keys()).collect();
    let mut told = format!("# {value}\n");
    for name in names {
        let (before, after) = (unasked.get(name), asked.get(name));
        match (before, after) {
            (Some(_), None) => told.push_str(&format!("{name}: is not there\n")),
            _ => {
                let lines = changed_lines(before.unwrap_or(&none), after.unwrap_or(&none));
                if !lines.is_empty() {
                    told.push_str(&format!("{name}:\n{}\n", lines.join("\n")));
                }
            }
        }
    }
    assert!(told.lines().count() > 1, "{value} changes nothing");
    told
}

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn what_each_value_changes() {
    let image = |name: &str| {
        let of = |key: &str, value: &str| format!("{name}.image.{key}={value}");
        [
            of("repository", "registry.example/x"),
            of("tag", "1.2.3"),
            of("digest", DIGEST),
        ]
    };
    let program = |name: &str| {
        [
            "replicas=4",
            "logLevel=debug",
            "resources.limits.memory=1Gi",
            "extraArgs={--an-argument}",
            "extraEnv[0].name=A,{}.extraEnv[0].value=b",
            "podLabels.team=plant",
            "podAnnotations.note=x",
            "nodeSelector.disk=ssd",
            "tolerations[0].key=plant,{}.tolerations[0].operator=Exists",
            "priorityClassName=high",
        ]
        .map(|value| format!("{name}.{}", value.replace("{}", name)))
    };
    let http = |name: &str| {
        [
            "enabled=false",
            "forwarderPool=plant.forwarders",
            "service.type=LoadBalancer,{}.service.port=80",
        ]
        .map(|value| format!("{name}.{}", value.replace("{}", name)))
    };
    let others = [
        "kafka.bootstrapServers=k1:9093",
        "kafka.tls.enabled=true",
        "kafka.tls.enabled=true,kafka.tls.secretName=kafka-tls,kafka.tls.clientCertificate=true",
        "kafka.sasl.secretName=kafka-user,kafka.sasl.mechanism=PLAIN",
        "kafka.tls.enabled=true,kafka.sasl.secretName=kafka-user",
        "shardMapTopic=other",
        "namespaces={line-a,line-b}",
        "imagePullSecrets[0].name=registry",
        "commonLabels.site=one",
        "operator.image.pullPolicy=Always",
        "serving.image.pullPolicy=Always",
        "ksqldb.url=http://ksqldb:8088",
        "ksqldb.assetsStream=a,ksqldb.unsMapTable=b,ksqldb.maxQueries=5,ksqldb.graceSeconds=0",
        "router.replayUrl=https://replay.example",
        "router.groups.level=line,router.groups.unsMapTopic=map",
        "router.groups.redirect=true",
        "router.auth.jwksUrl=https://keys.example",
        "router.auth.jwksUrl=https://k,router.auth.issuer=i,router.auth.audience=a,router.auth.groupsClaim=g",
        "router.limits.connections=10,router.limits.requestsPerSecond=20",
        "replay.topic=events,replay.payload=Verbatim,replay.memoryMiB=64",
        "networkPolicy.enabled=false",
        "monitoring.serviceMonitor=true,monitoring.labels.release=prometheus",
        "monitoring.prometheusRule=true,monitoring.runbooks=https://runbooks.example",
        "test.image=registry.example/busybox:1",
    ];
    let mut values: Vec<String> = others.map(str::to_owned).into();
    values.extend(
        ["operator", "forwarder", "serving"]
            .into_iter()
            .flat_map(image),
    );
    values.extend(
        ["operator", "router", "replay"]
            .into_iter()
            .flat_map(program),
    );
    values.extend(["router", "replay"].into_iter().flat_map(http));
    let unasked = documents(&rendered(&[]));
    let changes: Vec<String> = values.iter().map(|value| change(&unasked, value)).collect();
    insta::assert_snapshot!(changes.join("\n"));
}

#[test]
fn everything_is_called_as_asked() {
    for (value, name) in [
        ("nameOverride=other", "fan-other"),
        ("fullnameOverride=mine", "mine"),
    ] {
        let all = documents(&rendered(&[value]));
        let called = |key: &String| key.split(' ').nth(1).is_some_and(|n| n.starts_with(name));
        assert!(all.keys().all(called), "{value}: {:?}", all.keys());
    }
}

#[test]
fn the_dashboard_comes_as_it_is() {
    let with = documents(&rendered(&["monitoring.dashboard=true"]));
    let (_, lines) = with
        .iter()
        .find(|(name, _)| name.contains("dashboard"))
        .unwrap();
    let inside = lines.iter().skip_while(|line| !line.contains("json: |-"));
    let json: String = inside.skip(1).map(|line| format!("{line}\n")).collect();
    let dashboard: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(dashboard["panels"].is_array());
}

#[test]
fn the_rights_are_the_same_in_one_namespace_and_in_all() {
    let rules = |text: String| {
        let all = documents(&text).into_iter();
        let mut roles = all.filter(|(name, _)| {
            let wide = name.starts_with("ClusterRole fan-");
            wide || (name.starts_with("Role ") && !name.contains("-lease"))
        });
        let (_, lines) = roles.next().unwrap();
        let rules = lines.into_iter().skip_while(|line| line != "rules:");
        rules.collect::<Vec<String>>()
    };
    assert_eq!(
        rules(rendered(&[])),
        rules(rendered(&["namespaces={line-a}"]))
    );
}
