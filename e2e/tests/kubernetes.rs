//! The example's factory on a Kubernetes of three real nodes, counted against Kafka: a shard is rolled, another
//! configuration taken in, and the power of a node cut, all under load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use ofa_e2e::kafka::Broker;
use ofa_e2e::kubernetes::{Cluster, HOST};
use ofa_e2e::load::{Load, Pace, asset};
use ofa_e2e::operator::is_settled;
use ofa_e2e::process::Process;
use ofa_e2e::scene::say;
use ofa_e2e::{subscriber, wait};
use serde_json::Value;

const TOPIC: &str = "ofa_assets";
const GROUP: &str = "ofa_fan_out_layer_group";

/// Everything written has to be committed within this, on a machine that does much else.
const COMMIT: Duration = Duration::from_secs(90);

const ASSETS: u64 = 20;

/// Where clients of the cluster find the routing layer.
const ROUTER: &str = "http://router.factory.svc:8002";

/// Pulled up from nothing, on a machine with two cores.
const START: Duration = Duration::from_secs(240);

/// Every node leaves its clients half a minute to go, one node after the other; kubelets bring a changed file within two
/// minutes.
const CHANGE: Duration = Duration::from_secs(300);

/// How long a node stays without power: longer than Kubernetes takes to notice.
const DARK: Duration = Duration::from_secs(40);

const UNDER_LOAD: Pace = Pace {
    assets: ASSETS,
    rate: 3_000,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes and needs root; run by: make e2e"]
async fn a_factory_on_real_nodes_is_changed_and_loses_a_node_under_load() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let cluster = Cluster::start(3, folder.path())?;
    say(&format!("three nodes after {:.0} s", seconds(began)));
    let played = play(&cluster, folder.path()).await;
    played.with_context(|| cluster.dump())
}

async fn play(cluster: &Cluster, folder: &Path) -> Result<()> {
    let kafka = folder.join("kafka");
    std::fs::create_dir(&kafka)?;
    let broker = Broker::start_on(HOST, &kafka).await?;
    broker.create_topic(TOPIC, 6).await?;
    cluster.install_operator(&broker.address())?;
    let factory = folder.join("factory");
    cluster.copy_factory(&factory, &broker.address(), 3)?;

    let quiet = Pace {
        assets: ASSETS,
        rate: 100,
    };
    let load = Load::start(&broker, TOPIC, quiet)?;
    let began = Instant::now();
    cluster.kubectl(&["create", "namespace", "factory"])?;
    apply(cluster, &factory)?;
    first_event(cluster, folder).await?;
    say(&format!(
        "first event at a client {:.1} s after kubectl apply",
        seconds(began)
    ));
    load.stop()?;
    settled(cluster, START).await?;
    say(&format!("all settled after {:.1} s", seconds(began)));
    broker.everything_committed(GROUP, TOPIC, COMMIT).await?;
    the_plugin_works(cluster, &factory)?;

    let from = broker.ends(TOPIC)?;
    let quarters = Quarters::of(cluster)?;
    let out = folder.join("subscriber.out");
    let client = cluster.on_node(quarters.client, &subscribe(&["--json"]), &out)?;
    // Until it is connected to both shards.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let load = Load::start(&broker, TOPIC, UNDER_LOAD)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let times = [
        ("a roll of three nodes", roll(cluster).await?),
        ("another configuration", reload(cluster).await?),
        ("a power cut", lose_a_node(cluster, &quarters).await?),
    ];
    tokio::time::sleep(Duration::from_secs(5)).await;
    let written = load.stop()?;
    let to = broker.everything_committed(GROUP, TOPIC, COMMIT).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop::<Process>(client);

    let expected = ofa_client::audit::kafka::read(&broker.settings(), TOPIC, &from, &to)?;
    let printed = subscriber::read(&out, TOPIC, &from)?;
    for (what, (begin, end)) in times {
        let wait = printed.longest_wait(begin, end);
        say(&format!(
            "{what}: {:.0} s, longest wait for an event of an asset {} ms",
            end.duration_since(begin).as_secs_f64(),
            wait.as_millis()
        ));
    }
    let report = expected.compare(&printed.received);
    say(&format!(
        "{written} events at {} a second: {} gaps announced, {report:?}",
        UNDER_LOAD.rate, printed.gaps
    ));
    ensure!(report.is_perfect(), "{report:?}");
    ensure!(report.events == written);
    Ok(())
}

/// Where a client and a power cut do no harm to what there is only one of.
struct Quarters {
    client: usize,
    cut: usize,
}

impl Quarters {
    fn of(cluster: &Cluster) -> Result<Self> {
        let mut taken: Vec<usize> = Vec::new();
        for label in ["app=router", "app=replay"] {
            let pods = cluster.pods(label)?;
            taken.extend(pods.iter().filter_map(node_of));
        }
        let client = *taken.first().context("the router is on no node")?;
        let cut = (1..=3).rev().find(|node| !taken.contains(node));
        Ok(Self {
            client,
            cut: cut.context("every node has something that there is only one of")?,
        })
    }
}

fn node_of(pod: &Value) -> Option<usize> {
    let name = pod["spec"]["nodeName"].as_str()?;
    name.strip_prefix("node-")?.parse().ok()
}

fn apply(cluster: &Cluster, folder: &Path) -> Result<()> {
    let folder = folder.to_string_lossy();
    cluster.kubectl(&["apply", "-f", &folder]).map(drop)
}

fn subscribe(more: &[&str]) -> Vec<String> {
    let fixed = ["subscribe", "--router", ROUTER];
    let words = fixed.iter().chain(more).map(|&word| word.to_owned());
    words.chain((0..ASSETS).map(asset)).collect()
}

/// One event at a client, however early it asks.
async fn first_event(cluster: &Cluster, folder: &Path) -> Result<()> {
    let out = folder.join("first.out");
    wait::until("the first event", START, async || {
        let mut client = cluster.on_node(1, &subscribe(&["--count", "1"]), &out)?;
        let ended = client.wait(Duration::from_secs(20)).await;
        Ok(ended.is_ok_and(|status| status.success()) && out.metadata()?.len() > 0)
    })
    .await
}

/// `kubectl ofa` tells, routes, subscribes and plans, from outside the cluster.
fn the_plugin_works(cluster: &Cluster, factory: &Path) -> Result<()> {
    let told = cluster.kubectl(&["ofa", "status", "-n", "factory"])?;
    say(&told);
    ensure!(
        told.contains("natsshard/line-1") && told.contains("EPOCH"),
        "{told}"
    );
    let route = cluster.kubectl(&["ofa", "route", "-n", "factory", &asset(0)])?;
    ensure!(route.contains(".factory.svc:4222"), "{route}");
    let shards = std::fs::read_to_string(factory.join("shards.yaml"))?;
    let third = shards
        .replace("line-1", "line-3")
        .replace("line-2", "line-4");
    let file = factory.join("../more.yaml");
    std::fs::write(&file, third)?;
    let plan = cluster.kubectl(&[
        "ofa",
        "plan",
        "-n",
        "factory",
        "-f",
        &file.to_string_lossy(),
    ])?;
    say(&plan);
    ensure!(plan.contains("from 2 to 4 shards"), "{plan}");
    ensure!(plan.contains("reload    factory/forwarders"), "{plan}");
    Ok(())
}

/// A setting that takes a restart: pods are replaced one by one.
async fn roll(cluster: &Cluster) -> Result<(Timestamp, Timestamp)> {
    let begin = Timestamp::now();
    let before = uids(cluster)?;
    patch(
        cluster,
        r#"{"spec": {"config": {"maxPending": 134217728}}}"#,
    )?;
    wait::until(
        "the first shard's nodes to be replaced",
        CHANGE,
        async || {
            let now = uids(cluster)?;
            Ok(now.len() == 3
                && before.iter().all(|old| !now.contains(old))
                && all_settled(cluster))
        },
    )
    .await?;
    Ok((begin, Timestamp::now()))
}

/// A setting that nodes take in while they run: no pod is replaced.
async fn reload(cluster: &Cluster) -> Result<(Timestamp, Timestamp)> {
    let begin = Timestamp::now();
    let before = uids(cluster)?;
    patch(
        cluster,
        r#"{"spec": {"config": {"maxConnections": 70000}}}"#,
    )?;
    // Taken in: the pods have it, and the operator has seen that they have.
    settled(cluster, CHANGE).await?;
    ensure!(uids(cluster)? == before, "a reload has replaced pods");
    Ok((begin, Timestamp::now()))
}

async fn lose_a_node(cluster: &Cluster, quarters: &Quarters) -> Result<(Timestamp, Timestamp)> {
    let begin = Timestamp::now();
    cluster.cut(quarters.cut)?;
    tokio::time::sleep(DARK).await;
    cluster.restore(quarters.cut)?;
    settled(cluster, CHANGE).await?;
    Ok((begin, Timestamp::now()))
}

fn patch(cluster: &Cluster, change: &str) -> Result<()> {
    let args = [
        "-n",
        "factory",
        "patch",
        "natsshard",
        "line-1",
        "--type=merge",
        "-p",
        change,
    ];
    cluster.kubectl(&args).map(drop)
}

fn uids(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.pods("fanout.openfactory.io/workload=line-1")?;
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
    let mut uids: Vec<String> = pods.iter().filter_map(uid).collect();
    uids.sort();
    Ok(uids)
}

/// Two shards, a pool and a group.
fn all_settled(cluster: &Cluster) -> bool {
    let status = cluster.status();
    let items = status["items"].as_array().cloned().unwrap_or_default();
    items.len() == 4 && items.iter().all(is_at_rest)
}

fn is_at_rest(object: &Value) -> bool {
    let mut conditions = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let reconciling = conditions.find(|it| it["type"] == "Reconciling");
    // Groups that nobody has registered assets for wait for them.
    let is_group = object["kind"] == "AssetGroup";
    is_group || (is_settled(object) && reconciling.is_some_and(|it| it["status"] == "False"))
}

async fn settled(cluster: &Cluster, limit: Duration) -> Result<()> {
    wait::until("all resources to be ready", limit, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(all_settled(cluster))
    })
    .await
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
