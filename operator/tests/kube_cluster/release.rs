//! A release's life on a cluster: installed, tested, upgraded, uninstalled, its CRDs upgraded with it and kept.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use ofa_crds::api::NatsShard;
use ofa_operator::metrics::Metrics;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::chart::CHART;
use crate::cluster::{client, done, eventually, kubeconfig, namespace, program};
use crate::shard;

const CRD: &str = "natsshards.fanout.openfactory.io";

async fn helm(arguments: Vec<String>) -> Output {
    let run = move || {
        let mut helm = Command::new(program("helm"));
        helm.args(arguments)
            .env("KUBECONFIG", kubeconfig())
            .output()
            .unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn succeeds(words: &[&str]) {
    let output = helm(arguments(words)).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
}

/// The chart of a release whose CRDs did not know all columns yet.
fn earlier_chart(directory: &Path) {
    let copied = Command::new("cp")
        .args(["-r", CHART])
        .arg(directory)
        .status();
    assert!(copied.unwrap().success());
    let file = directory.join("files/crds/natsshards.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut crd: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = None;
    }
    std::fs::write(&file, serde_json::to_string(&crd).unwrap()).unwrap();
}

async fn columns(client: &Client) -> usize {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut versions = crds.get(CRD).await.unwrap().spec.versions;
    versions
        .remove(0)
        .additional_printer_columns
        .unwrap_or_default()
        .len()
}

/// Answers in place of the release's programs, on the addresses of its pods.
async fn answer(client: &Client, namespace: &str, metrics: &Metrics) -> AbortOnDropHandle<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of = |component: &str| {
        ListParams::default().labels(&format!("app.kubernetes.io/component={component}"))
    };
    for (component, port) in [("operator", 9090), ("router", 8002), ("replay", 8003)] {
        for pod in pods.list(&of(component)).await.unwrap() {
            let ip = pod.status.and_then(|status| status.pod_ip).unwrap();
            let address = format!("{ip}:{port}");
            if component == "operator" {
                let address = address.parse().unwrap();
                ofa_operator::http::serve(address, metrics.clone())
                    .await
                    .unwrap();
            } else {
                let router = Router::new().route("/health", get(|| async { "ok" }));
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            }
        }
    }
    let (client, namespace) = (client.clone(), namespace.to_owned());
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            run_tests(&client, &namespace).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }))
}

/// What a kubelet does with the hook's pods: asks what their containers ask, and says how they ended.
async fn run_tests(client: &Client, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let tests = ListParams::default().labels("app.kubernetes.io/component=test");
    for pod in pods.list(&tests).await.unwrap() {
        let phase = pod.status.and_then(|status| status.phase);
        if phase.as_deref() != Some("Running") {
            continue;
        }
        let mut good = true;
        for container in pod.spec.unwrap().containers {
            let command = container.command.unwrap();
            assert_eq!(command[..3], ["wget", "-q", "-O-"]);
            good &= fetch(client, namespace, &command[3]).await;
        }
        let phase = if good { "Succeeded" } else { "Failed" };
        let ended = Patch::Merge(json!({"status": {"phase": phase}}));
        let name = pod.metadata.name.unwrap();
        let _ = pods
            .patch_status(&name, &PatchParams::default(), &ended)
            .await;
    }
}

/// `http://<service>:<port>/<path>` as the service's pods answer it.
async fn fetch(client: &Client, namespace: &str, url: &str) -> bool {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let (name, port) = host.split_once(':').unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get(name).await.unwrap().spec.unwrap();
    assert_eq!(service.ports.unwrap()[0].port.to_string(), port);
    let selector = service.selector.unwrap();
    let selector: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let behind = ListParams::default().labels(&selector.join(","));
    let behind = pods.list(&behind).await.unwrap();
    let pod = behind.items.into_iter().next().unwrap();
    let target = pod.spec.unwrap().containers.remove(0).ports.unwrap()[0].container_port;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    let answer = reqwest::get(format!("http://{ip}:{target}/{path}")).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

#[tokio::test]
async fn a_release_is_installed_tested_upgraded_and_leaves_the_resources() {
    let client = client();
    let namespace = namespace(&client).await;
    let earlier = tempfile::tempdir().unwrap();
    let earlier = earlier.path().join("chart");
    earlier_chart(&earlier);
    let values = format!("namespaces={{{namespace}}}");
    let release = async |verb: &str, chart: &str| {
        let mut words = vec![verb, "fan", chart, "-n", &namespace, "--take-ownership"];
        words.extend(["--set", &values, "--wait", "--timeout", "120s"]);
        succeeds(&words).await;
    };
    release("install", earlier.to_str().unwrap()).await;
    assert_eq!(columns(&client).await, 0);
    shard::create(&client, &namespace, "line", json!({"nodes": 2})).await;
    release("upgrade", CHART).await;
    assert!(columns(&client).await > 3, "the CRD was not upgraded");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let mut found: Vec<String> = deployments
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(|deployment| deployment.name_any())
        .collect();
    found.sort();
    let expected = ["operator", "replay", "router"];
    assert_eq!(
        found,
        expected.map(|name| format!("fan-openfactory-fanout-{name}"))
    );

    // The operator waits for something: the test says so.
    let metrics = Metrics::default();
    metrics.pending(vec!["a CRD is missing".to_owned()]);
    let answering = answer(&client, &namespace, &metrics).await;
    let tested = ["test", "fan", "-n", &namespace, "--timeout", "60s"];
    let failed = helm(arguments(&tested)).await;
    assert!(!failed.status.success(), "the test cannot fail");
    metrics.pending(Vec::new());
    succeeds(&tested).await;
    drop(answering);

    succeeds(&["uninstall", "fan", "-n", &namespace, "--wait"]).await;
    let left = deployments.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 0);
    let shards: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    eventually("the CRD and the resource are kept", || async {
        shards.get_opt("line").await.ok().flatten().map(|_| ())
    })
    .await;
    done(&client, &namespace).await;
}
