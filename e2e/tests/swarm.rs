//! The example's factory on a real Docker Swarm, counted against Kafka, while a shard is rolled.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ofa_e2e::kafka::Broker;
use ofa_e2e::load::{Load, Pace, asset};
use ofa_e2e::operator::is_settled;
use ofa_e2e::process::Process;
use ofa_e2e::scene::say;
use ofa_e2e::subscriber;
use ofa_e2e::swarm::{HOST, Swarm};
use ofa_e2e::wait;

const TOPIC: &str = "ofa_assets";
const GROUP: &str = "ofa_fan_out_layer_group";

/// Everything written has to be committed within this, on a machine that does much else.
const COMMIT: Duration = Duration::from_secs(90);

const ASSETS: u64 = 20;

/// Pulled up from nothing, on a machine with two cores.
const START: Duration = Duration::from_secs(240);

/// Every node leaves its clients half a minute to go, one node after the other.
const ROLL: Duration = Duration::from_secs(300);

/// The image with the client.
const CLIENT: &str = concat!("openfactory-fanout/ofa:", env!("CARGO_PKG_VERSION"));

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and needs root; run by: make e2e-swarm"]
async fn a_factory_runs_and_a_shard_is_rolled_under_load() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let swarm = Swarm::start(3)?;
    swarm.load_images()?;
    let broker = Broker::start_on(HOST, folder.path()).await?;
    broker.create_topic(TOPIC, 6).await?;
    let example = folder.path().join("example");
    swarm.copy_example(&example, &broker.address())?;
    swarm.on_manager(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--attachable",
        "factory-net",
    ])?;

    let quiet = Pace {
        assets: ASSETS,
        rate: 100,
    };
    let load = Load::start(&broker, TOPIC, quiet)?;
    let began = Instant::now();
    swarm.deploy(&example, &broker.address(), 1)?;
    first_event(&swarm).await?;
    say(&format!(
        "first event {:.1} s after stack deploy",
        began.elapsed().as_secs_f64()
    ));
    load.stop()?;
    settled(&swarm, START).await?;
    broker.everything_committed(GROUP, TOPIC, COMMIT).await?;

    let from = broker.ends(TOPIC)?;
    let subscriber = subscribe(&swarm, folder.path())?;
    // Until it is connected to both shards.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let load = Load::start(
        &broker,
        TOPIC,
        Pace {
            assets: ASSETS,
            rate: 5_000,
        },
    )?;
    tokio::time::sleep(Duration::from_secs(5)).await;

    let before = containers(&swarm, "line-1");
    let rolled = Instant::now();
    roll_the_first_shard(&swarm, &example, &broker)?;
    wait::until("the first shard's nodes to be replaced", ROLL, async || {
        let now = containers(&swarm, "line-1");
        Ok(now.len() == 2 && before.iter().all(|old| !now.contains(old)) && all_settled(&swarm))
    })
    .await
    .with_context(|| format!("{:#}", swarm.status()))?;
    say(&format!(
        "rolled in {:.0} s",
        rolled.elapsed().as_secs_f64()
    ));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let written = load.stop()?;
    let to = broker.everything_committed(GROUP, TOPIC, COMMIT).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(subscriber);

    let expected = ofa_client::audit::kafka::read(&broker.settings(), TOPIC, &from, &to)?;
    let printed = subscriber::read(&folder.path().join("subscriber.out"), TOPIC, &from)?;
    let report = expected.compare(&printed.received);
    say(&format!(
        "{written} events at 5,000 a second: {} gaps announced, {report:?}",
        printed.gaps
    ));
    // What the subscriber missed while it changed nodes, the replay service has sent again.
    ensure!(report.is_perfect(), "{report:?}");
    ensure!(report.events == written);

    swarm.on_manager(&["stack", "rm", "fanout"])?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = swarm.on_manager(&["service", "ls", "--format", "{{.Name}}"])?;
    ensure!(
        left.lines().any(|name| name == "line-1-0"),
        "services outlive the operator: {left}"
    );
    Ok(())
}

/// One event at a subscriber, however early it asks.
async fn first_event(swarm: &Swarm) -> Result<()> {
    wait::until("the first event", START, async || {
        let mut command = swarm.docker(1);
        command.args([
            "run",
            "--rm",
            "--network",
            "factory-net",
            CLIENT,
            "subscribe",
        ]);
        command.args(["--router", "http://router:8002", "--count", "1", &asset(0)]);
        let output = tokio::task::block_in_place(|| command.output())?;
        Ok(output.status.success() && !output.stdout.is_empty())
    })
    .await
    .with_context(|| {
        let services = swarm.on_manager(&["service", "ls"]).unwrap_or_default();
        let logs = swarm.on_manager(&["service", "logs", "fanout_operator"]);
        format!(
            "{services}\n{:#}\n{}",
            swarm.status(),
            logs.unwrap_or_default()
        )
    })
}

/// `ofa subscribe` in a container, its output in a file.
fn subscribe(swarm: &Swarm, folder: &Path) -> Result<Process> {
    let out = folder.join("subscriber.out");
    let mut command = std::process::Command::new("sh");
    let docker = swarm.docker(1);
    command
        .args(["-c", "out=$1; shift; exec \"$@\" >\"$out\"", "sh"])
        .arg(&out)
        .arg(docker.get_program())
        .args(docker.get_args())
        .args([
            "run",
            "--rm",
            "--network",
            "factory-net",
            CLIENT,
            "subscribe",
            "--json",
        ])
        .args(["--router", "http://router:8002"])
        .args((0..ASSETS).map(asset))
        .stdout(Stdio::null());
    Process::start("subscriber", folder, command)
}

fn roll_the_first_shard(swarm: &Swarm, example: &Path, broker: &Broker) -> Result<()> {
    let shards = example.join("resources/shards.yaml");
    let text = std::fs::read_to_string(&shards)?;
    let changed = text.replacen("nodes: 2", "nodes: 2\n  config: { maxPayload: 524288 }", 1);
    ensure!(text != changed);
    std::fs::write(&shards, changed)?;
    swarm.deploy(example, &broker.address(), 2)
}

/// The containers of a workload's instances, as the operator knows them.
fn containers(swarm: &Swarm, workload: &str) -> Vec<String> {
    let status = swarm.status();
    let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
    let mine = workloads.iter().filter(|it| it["id"]["name"] == workload);
    let instances = mine.flat_map(|it| it["instances"].as_array().cloned().unwrap_or_default());
    instances
        .filter_map(|instance| instance["process"].as_str().map(str::to_owned))
        .collect()
}

fn all_settled(swarm: &Swarm) -> bool {
    let status = swarm.status();
    let items = status["items"].as_array().cloned().unwrap_or_default();
    let mut with_conditions = items.iter().filter(|item| item["kind"] != "Service");
    items.len() == 7 && with_conditions.all(is_settled)
}

async fn settled(swarm: &Swarm, limit: Duration) -> Result<()> {
    wait::until("all resources to be ready", limit, async || {
        Ok(all_settled(swarm))
    })
    .await
    .with_context(|| format!("{:#}", swarm.status()["items"]))
}
