//! What GitOps tools make of our resources through their lives: Argo CD by our Lua, Flux and others by kstatus' rules.

use kube::Client;
use kube::api::{Api, DeleteParams};
use mlua::{Lua, LuaSerdeExt as _};
use ofa_crds::api::NatsShard;
use serde_json::{Value, json};

use crate::cluster::{client, done, eventually, namespace};
use crate::kafka::Kafka;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::shard;

const HEALTH: &str = include_str!("../../../examples/argocd/resource-health.yaml");

/// The scripts of the three kinds, as Argo CD reads them.
fn scripts() -> Vec<String> {
    let config: Value = serde_saphyr::from_str(HEALTH).unwrap();
    let kinds = ["NatsShard", "ForwarderPool", "AssetGroup"];
    let key = |kind: &str| format!("resource.customizations.health.fanout.openfactory.io_{kind}");
    let script = |kind| config["data"][key(kind)].as_str().unwrap().to_owned();
    kinds.map(script).into()
}

/// Argo CD's word, as it runs the script: with the object as the global `obj`.
fn argo(script: &str, object: &Value) -> String {
    let lua = Lua::new();
    lua.globals()
        .set("obj", lua.to_value(object).unwrap())
        .unwrap();
    let health: mlua::Table = lua.load(script).eval().unwrap();
    let message: String = health.get("message").unwrap();
    assert!(!message.is_empty());
    health.get("status").unwrap()
}

/// The rules of sigs.k8s.io/cli-utils/pkg/kstatus for resources that it does not know.
fn kstatus(object: &Value) -> &'static str {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    let observed = &object["status"]["observedGeneration"];
    if observed.is_number() && *observed != object["metadata"]["generation"] {
        return "InProgress";
    }
    let empty = Vec::new();
    let conditions = object["status"]["conditions"].as_array().unwrap_or(&empty);
    let is = |kind: &str, status: &str| {
        conditions
            .iter()
            .any(|c| c["type"] == kind && c["status"] == status)
    };
    if is("Reconciling", "True") {
        return "InProgress";
    }
    if is("Stalled", "True") {
        return "Failed";
    }
    if is("Ready", "False") || is("Ready", "Unknown") {
        return "InProgress";
    }
    "Current"
}

async fn object(client: &Client, namespace: &str) -> Value {
    let api: Api<NatsShard> = Api::namespaced(client.clone(), namespace);
    serde_json::to_value(api.get("line").await.unwrap()).unwrap()
}

/// Waits for a verdict of both, and sees meanwhile that they agree and never say what would end a wait too early.
async fn until(client: &Client, namespace: &str, wanted: (&str, &str), never: &str) {
    let script = &scripts()[0];
    eventually(&format!("{wanted:?}"), || async {
        let now = object(client, namespace).await;
        let said = (argo(script, &now), kstatus(&now));
        let agree = matches!(
            (said.0.as_str(), said.1),
            ("Healthy", "Current")
                | ("Progressing", "InProgress" | "Terminating")
                | ("Degraded", "Failed" | "Terminating")
                | ("Suspended", "InProgress")
        );
        // Before the operator has seen it, kstatus takes a resource without status for done.
        assert!(agree || now["status"].is_null(), "{said:?} of {now:#}");
        assert_ne!(said.0, never, "{now:#}");
        (said.0 == wanted.0 && said.1 == wanted.1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn gitops_tools_read_the_truth_through_a_rollout() {
    let scripts = scripts();
    assert!(scripts.iter().all(|script| *script == scripts[0]));
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    shard::create(&client, &namespace, "line", json!({"nodes": 2})).await;
    let unseen = object(&client, &namespace).await;
    assert_eq!(argo(&scripts[0], &unseen), "Progressing");

    let operator = Operator::start(&client, &namespace, &Kafka::new(&client));
    until(&client, &namespace, ("Healthy", "Current"), "Degraded").await;
    let change = async |spec: Value| shard::change(&client, &namespace, "line", spec).await;
    change(json!({"resources": {"requests": {"cpu": "10m"}}})).await;
    let changed = object(&client, &namespace).await;
    assert_ne!(
        argo(&scripts[0], &changed),
        "Healthy",
        "done before it has begun"
    );
    until(&client, &namespace, ("Healthy", "Current"), "Degraded").await;

    change(json!({"paused": true})).await;
    until(&client, &namespace, ("Suspended", "InProgress"), "Degraded").await;
    change(json!({"paused": false})).await;
    until(&client, &namespace, ("Healthy", "Current"), "Degraded").await;

    let api: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(client.clone(), &namespace);
    change(json!({"tls": {"secretName": "missing"}})).await;
    until(&client, &namespace, ("Degraded", "Failed"), "Suspended").await;
    assert!(api.get_opt("missing").await.unwrap().is_none());
    change(json!({"tls": null})).await;
    until(&client, &namespace, ("Healthy", "Current"), "Suspended").await;

    let shards: Api<NatsShard> = Api::namespaced(client.clone(), &namespace);
    shards
        .delete("line", &DeleteParams::default())
        .await
        .unwrap();
    eventually("gone", || async {
        let Some(shard) = shards.get_opt("line").await.unwrap() else {
            return Some(());
        };
        let now = serde_json::to_value(shard).unwrap();
        assert_ne!(argo(&scripts[0], &now), "Healthy");
        None
    })
    .await;
    operator.stop().await;
    done(&client, &namespace).await;
}
