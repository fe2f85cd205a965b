//! `kubectl ofa` against a real control plane: what there is, where an asset is, and what a change would do.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use ofa_e2e::kubectl::{ControlPlane, Kubectl};
use ofa_e2e::serving::Serving;
use serde_json::Value;

const FACTORY: &str = "
apiVersion: fanout.openfactory.io/v1alpha1
kind: NatsShard
metadata: { name: line-1, labels: { factory: demo } }
spec: { nodes: 2 }
---
apiVersion: fanout.openfactory.io/v1alpha1
kind: NatsShard
metadata: { name: line-2, labels: { factory: demo } }
spec: { nodes: 2 }
---
apiVersion: fanout.openfactory.io/v1alpha1
kind: ForwarderPool
metadata: { name: forwarders }
spec:
  kafka: { bootstrapServers: \"kafka:9092\" }
  shardSelector: { matchLabels: { factory: demo } }
  replicas: 2
---
apiVersion: fanout.openfactory.io/v1alpha1
kind: AssetGroup
metadata: { name: lines }
spec:
  grouping: { level: line }
  ksqldb: { url: \"http://ksqldb:8088\" }
  stream: { partitions: 3 }
";

/// As the operator says it of a pool that acts by its map.
const POOL_STATUS: &str = r#"{"status": {"shardMapEpoch": 7, "shards": 2, "lag": 42, "replicas": 2, "conditions": [
    {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    {"type": "RolloutPending", "status": "True", "reason": "NewerOperator", "message": "a newer operator waits",
     "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;

/// As it says it of two groups with a thousand assets, of which one is about to be made again.
const GROUP_STATUS: &str = r#"{"status": {"groupCount": 2, "groups": [
    {"name": "Weld", "topic": "asset_stream_Weld_topic", "assets": 600},
    {"name": "Paint", "topic": "asset_stream_Paint_topic", "assets": 400}],
    "plannedActions": [{"stream": "ASSET_STREAM_WELD", "action": "Recreate", "message": "its query is gone",
    "since": "2026-01-01T00:00:00Z"}]}}"#;

/// A namespace of its own, which goes in the end.
struct Scene<'a> {
    kubectl: &'a Kubectl,
    namespace: String,
}

impl Scene<'_> {
    fn ofa(&self, args: &[&str]) -> Result<String> {
        let args = [&["ofa"], args, &["--namespace", &self.namespace]].concat();
        self.kubectl.run(&args)
    }

    fn apply(&self, yaml: &str) -> Result<()> {
        let mut kubectl = self.kubectl.command("kubectl");
        kubectl.args(["apply", "--namespace", &self.namespace, "-f", "-"]);
        fed(&mut kubectl, yaml).map(drop)
    }

    fn plan(&self, yaml: &str) -> Result<String> {
        let mut kubectl = self.kubectl.command("kubectl");
        kubectl.args(["ofa", "plan", "--namespace", &self.namespace, "-f", "-"]);
        fed(&mut kubectl, yaml)
    }

    fn say(&self, object: &str, status: &str) -> Result<()> {
        let change = ["--type=merge", "--subresource=status", "-p", status];
        let args = [&["patch", object, "-n", &self.namespace], &change[..]].concat();
        self.kubectl.run(&args).map(drop)
    }
}

fn fed(command: &mut Command, text: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn must_tell(text: &str, what: &[&str]) -> Result<()> {
    for what in what {
        ensure!(text.contains(what), "no '{what}' in:\n{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_tells_what_is_and_what_would_be() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = ControlPlane::ensure(folder.path())?;
    let scene = Scene {
        kubectl: &cluster.kubectl,
        namespace: format!("kubectl-ofa-{}", std::process::id()),
    };
    scene
        .kubectl
        .run(&["create", "namespace", &scene.namespace])?;
    let told = tell(&scene, folder.path()).await;
    let wait = "--wait=false";
    scene
        .kubectl
        .run(&["delete", "namespace", &scene.namespace, wait])?;
    told
}

async fn tell(scene: &Scene<'_>, folder: &Path) -> Result<()> {
    must_tell(&scene.ofa(&["status"])?, &["No resources."])?;
    scene.apply(FACTORY)?;
    scene.say("forwarderpool/forwarders", POOL_STATUS)?;
    scene.say("assetgroup/lines", GROUP_STATUS)?;
    status(scene)?;
    route(scene, folder).await?;
    plan(scene)
}

fn status(scene: &Scene<'_>) -> Result<()> {
    let table = scene.ofa(&["status"])?;
    must_tell(
        &table,
        &[
            "natsshard/line-1",
            "EPOCH",
            "LAG",
            "42",
            "a newer operator waits",
            "Recreate of stream",
        ],
    )?;
    let json: Value = serde_json::from_str(&scene.ofa(&["status", "--output", "json"])?)?;
    ensure!(
        json["items"].as_array().map(Vec::len) == Some(4),
        "{json:#}"
    );
    Ok(())
}

async fn route(scene: &Scene<'_>, folder: &Path) -> Result<()> {
    let shards = [(
        "line-1".to_owned(),
        "nats://line-1-0.line-1.factory.svc:4222".to_owned(),
    )];
    let router = Serving::router(&shards, None, folder).await?;
    let told = scene.ofa(&["route", "CNC-0001", "--router", &router.url()])?;
    must_tell(
        &told,
        &["line-1", "CNC-0001.*", "line-1-0.line-1.factory.svc:4222"],
    )?;
    // Pods in which nothing runs have no port to forward, and there is no router yet.
    let error = scene
        .ofa(&["route", "CNC-0001"])
        .err()
        .context("no router")?;
    must_tell(
        &format!("{error:#}"),
        &["no Service of a router", "--router"],
    )
}

fn plan(scene: &Scene<'_>) -> Result<()> {
    let same = scene.plan(FACTORY)?;
    must_tell(&same, &["Nothing would change."])?;
    let third = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\n\
        metadata: { name: line-3, labels: { factory: demo } }\n";
    let more = scene.plan(&format!("{third}spec: {{ nodes: 2 }}\n"))?;
    must_tell(
        &more,
        &[
            "start     ",
            "line-3: 2 instances",
            "restart   ",
            "forwarders: 2 instances",
            "% of the assets (about ",
            "from 2 to 3 shards",
        ],
    )?;
    let changed = FACTORY
        .replacen(
            "nodes: 2 }",
            "nodes: 2, config: { maxPending: 99999999 } }",
            1,
        )
        .replace("partitions: 3", "partitions: 2");
    let told = scene.plan(&changed)?;
    must_tell(
        &told,
        &[
            "line-1: line-1-1, line-1-0, one after the other",
            "recreate  ",
            "PARTITIONS is",
        ],
    )?;
    let less = scene.ofa(&["plan", "--delete", "natsshard/line-2"])?;
    must_tell(
        &less,
        &["deleted   NatsShard", "stop      ", "from 2 to 1 shards"],
    )
}
