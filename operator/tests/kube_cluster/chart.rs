//! The chart: what it refuses, what it installs and leaves behind, and that the operator's rights are enough.

use std::process::{Command, Output};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams};
use ofa_crds::api::NatsShard;
use serde_json::json;

use crate::cluster::{client, done, eventually, impersonated, kubeconfig, namespace, program};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::shard;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/openfactory-fanout");

fn helm(arguments: &[&str]) -> Output {
    let mut helm = Command::new(program("helm"));
    helm.args(arguments)
        .env("KUBECONFIG", kubeconfig())
        .output()
        .unwrap()
}

fn stdout(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn values_that_the_chart_does_not_know_are_refused() {
    stdout(helm(&["lint", "--strict", CHART]));
    for (value, word) in [
        ("operator.replica=3", "replica"),
        ("operator.replicas=0", "replicas"),
        ("operator.image.digest=latest", "digest"),
        ("namespaces={Upper}", "namespaces"),
    ] {
        let refused = helm(&[
            "template",
            "r",
            CHART,
            "--kube-version",
            "1.33.0",
            "--set",
            value,
        ]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && error.contains(word),
            "{value}: {error}"
        );
    }
}

#[test]
fn everything_the_chart_may_hold() {
    let mut arguments = vec![
        "template",
        "fan",
        CHART,
        "--kube-version",
        "1.33.0",
        "--namespace",
        "plant",
    ];
    for value in [
        "crds.install=false",
        "namespaces={line-a,line-b}",
        "operator.image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "operator.extraArgs={--no-leader-election}",
        "operator.podLabels.team=plant",
        "commonLabels.site=one",
        "monitoring.serviceMonitor=true",
        "monitoring.prometheusRule=true",
        "monitoring.dashboard=true",
    ] {
        arguments.extend(["--set", value]);
    }
    insta::assert_snapshot!(stdout(helm(&arguments)));
}

#[tokio::test]
async fn an_operator_has_the_rights_it_needs_and_an_uninstall_keeps_the_resources() {
    let client = client();
    let namespace = namespace(&client).await;
    let values = format!("namespaces={{{namespace}}}");
    let release = |verb: &str| {
        stdout(helm(&[
            verb,
            "fan",
            CHART,
            "-n",
            &namespace,
            "--take-ownership",
            "--set",
            &values,
            "--wait",
            "--timeout",
            "90s",
        ]))
    };
    release("install");
    release("upgrade");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    assert_eq!(
        deployments
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );

    // With the rights of the chart's account in this one namespace, and no others.
    let account = format!("system:serviceaccount:{namespace}:fan-openfactory-fanout-operator");
    let limited = impersonated(&account);
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Operator::start(&limited, &namespace, &Kafka::new(&client));
    shard::create(&client, &namespace, "line", json!({"nodes": 2})).await;
    shard::settled(&client, &namespace, "line").await;
    shard::change(
        &client,
        &namespace,
        "line",
        json!({"config": {"maxConnections": 1000}}),
    )
    .await;
    shard::settled(&client, &namespace, "line").await;

    stdout(helm(&["uninstall", "fan", "-n", &namespace, "--wait"]));
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.get("natsshards.fanout.openfactory.io").await.unwrap();
    let shards: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    shards.get("line").await.unwrap();
    operator.stop().await;

    // Without the operator nobody lets go of it.
    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    shards
        .delete("line", &DeleteParams::default())
        .await
        .unwrap();
    eventually("gone", || async {
        shards
            .get_opt("line")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
