//! The chart's roles allow what the operator does and nothing else: it goes through its whole life with them, nothing is
//! refused, and with any of the rights taken away something would be.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams};
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use ofa_operator::kube::KubernetesArgs;
use ofa_operator::kube::kind::Kind;
use serde_json::json;

use crate::chart::CHART;
use crate::cluster::{client, done, eventually, kubeconfig, metered_as, namespace, program};
use crate::kafka::Kafka;
use crate::meter::Meter;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::{group, pool, shard};

fn helm(arguments: &[&str]) {
    let mut helm = Command::new(program("helm"));
    let output = helm
        .args(arguments)
        .env("KUBECONFIG", kubeconfig())
        .output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
}

/// `group resource verb` of every rule that the release has brought into the cluster.
async fn granted(client: &Client, release: &str) -> BTreeSet<String> {
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/instance={release}"));
    let roles: Api<Role> = Api::all(client.clone());
    let roles = roles.list(&ours).await.unwrap().items.into_iter();
    let mut rules: Vec<PolicyRule> = roles.flat_map(|role| role.rules.unwrap()).collect();
    let wide: Api<ClusterRole> = Api::all(client.clone());
    let wide = wide.list(&ours).await.unwrap().items.into_iter();
    rules.extend(wide.flat_map(|role| role.rules.unwrap()));
    let mut granted = BTreeSet::new();
    for rule in &rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = rule.verbs.iter();
                granted.extend(verbs.map(|verb| format!("{group} {resource} {verb}")));
            }
        }
    }
    granted
}

/// Everything that an operator does for resources of all kinds, from their creation to their end.
async fn whole_life(client: &Client, namespace: &str, kafka: &Kafka) {
    shard::create(client, namespace, "line", json!({"nodes": 2})).await;
    let limits = json!({"minReplicas": 1, "maxReplicas": 4, "targetLag": 100});
    pool::create(client, namespace, "pool", json!({ "autoscaling": limits })).await;
    group::create(client, namespace, "group", json!({"level": "line"})).await;
    shard::settled(client, namespace, "line").await;
    pool::settled(client, namespace, "pool").await;
    group::settled(client, namespace, "group").await;

    kafka.group(100_000, Some(1));
    let pools: Api<ForwarderPool> = Api::namespaced(client.clone(), namespace);
    eventually("a step of the autoscaler", || async {
        let scale = pools.get_scale("pool").await.unwrap();
        (scale.spec?.replicas == Some(2)).then_some(())
    })
    .await;
    // Rolls through the gate; the event of the second repeats that of the first.
    for cpu in ["10m", "20m"] {
        let resources = json!({"resources": {"requests": {"cpu": cpu}}});
        shard::change(client, namespace, "line", resources).await;
        shard::settled(client, namespace, "line").await;
    }
    let config = json!({"config": {"maxConnections": 1000}});
    shard::change(client, namespace, "line", config).await;
    shard::settled(client, namespace, "line").await;
    pool::settled(client, namespace, "pool").await;

    gone::<AssetGroup>(client, namespace, "group").await;
    gone::<ForwarderPool>(client, namespace, "pool").await;
    gone::<NatsShard>(client, namespace, "line").await;
}

async fn gone<K: Kind>(client: &Client, namespace: &str, name: &str) {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.delete(name, &DeleteParams::default()).await.unwrap();
    eventually(&format!("{name} gone"), || async {
        api.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// `namespaces` as the chart has it: none for all of them.
async fn no_right_can_be_spared(namespace: &str, namespaces: Vec<String>) {
    let client = client();
    let listed = format!("namespaces={{{}}}", namespaces.join(","));
    let named = format!("fullnameOverride={namespace}");
    let mut install = vec!["install", namespace, CHART, "-n", namespace];
    if !namespaces.is_empty() {
        install.extend(["--set", &listed]);
    }
    install.extend(["--set", &named, "--set"]);
    install
        .push("crds.install=false,operator.replicas=1,router.enabled=false,replay.enabled=false");
    helm(&install);

    let meter = match namespaces.is_empty() {
        true => Meter::unlimited().only(namespace),
        false => Meter::unlimited(),
    };
    let account = format!("system:serviceaccount:{namespace}:{namespace}-operator");
    let args = KubernetesArgs {
        namespaces,
        no_leader_election: false,
        lease_name: format!("{namespace}-operator"),
        lease_namespace: Some(namespace.to_owned()),
        identity: Some("operator".to_owned()),
    };
    let _nodes = Nodes::answer(&client, namespace);
    let kafka = Kafka::new(&client);
    let operator = Operator::start_with_args(&metered_as(&account, &meter), args, &kafka);
    whole_life(&client, namespace, &kafka).await;
    operator.stop().await;

    let granted = granted(&client, namespace).await;
    assert_eq!(meter.refused(), BTreeSet::new(), "rights that are missing");
    let used = meter.rights();
    let spare: Vec<&String> = granted.difference(&used).collect();
    assert_eq!(spare, [""; 0], "rights that nothing needs");
    helm(&["uninstall", namespace, "-n", namespace]);
    done(&client, namespace).await;
}

#[tokio::test]
async fn no_right_can_be_spared_in_one_namespace() {
    let namespace = namespace(&client()).await;
    no_right_can_be_spared(&namespace, vec![namespace.clone()]).await;
}

#[tokio::test]
async fn no_right_can_be_spared_in_all_namespaces() {
    let namespace = namespace(&client()).await;
    no_right_can_be_spared(&namespace, Vec::new()).await;
}
