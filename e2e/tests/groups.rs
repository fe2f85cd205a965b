//! Groups from the resource to the browser: they come with their assets, and their services wake when somebody asks.
#![allow(clippy::expect_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ofa_e2e::engine::{MAP, register};
use ofa_e2e::kafka::{Broker, Record};
use ofa_e2e::operator::Operator;
use ofa_e2e::process::Process;
use ofa_e2e::scene::say;
use ofa_e2e::{http, ports, tools, wait};
use serde_json::{Value, json};

const SOURCE: &str = "ofa_assets";

/// Processes start and topics are made within seconds; a busy machine takes its time.
const LIMIT: Duration = Duration::from_secs(120);

fn resource(broker: &Broker, more: &str) -> String {
    format!(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: AssetGroup\nmetadata: {{name: workcenters, namespace: factory}}\n\
         spec:\n  kafka: {{bootstrapServers: \"{}\"}}\n  grouping: {{level: workcenter}}\n  \
         stream: {{engine: Native, partitions: 1, deletionPolicy: Delete}}\n  serving: {{{more}}}\n",
        broker.address()
    )
}

fn send(broker: &Broker, asset: &str, value: u32) -> Result<()> {
    let event = json!({"ID": "n", "VALUE": value, "TAG": "Count", "TYPE": "Samples"}).to_string();
    let record = Record {
        key: Some(asset.into()),
        value: Some(event.into()),
        partition: 0,
    };
    broker.produce(SOURCE, &[record])
}

async fn router(broker: &Broker, folder: &Path) -> Result<(SocketAddr, Process)> {
    let address = ports::free()?;
    let mut command = tools::own("serving")?;
    command
        .arg("router")
        .env("KAFKA_BROKER", broker.address())
        .env("BIND_ADDRESS", address.ip().to_string())
        .env("PORT", address.port().to_string());
    let process = Process::start("router", folder, command)?;
    wait::until("the router to answer", LIMIT, async || {
        Ok(http::get(address, "/health").await.is_ok())
    })
    .await?;
    Ok((address, process))
}

/// The group's entry in the resource's status.
fn group(operator: &Operator, name: &str) -> Option<Value> {
    let status = operator.status().ok()?;
    let items = status["items"].as_array()?;
    let groups = items.first()?["status"]["groups"].as_array()?;
    groups.iter().find(|group| group["name"] == name).cloned()
}

async fn wait_for_state(operator: &Operator, name: &str, state: &str) -> Result<()> {
    let what = format!("group {name} to be {state}");
    let result = wait::until(&what, LIMIT, async || {
        Ok(group(operator, name).is_some_and(|group| group["state"] == state))
    });
    result
        .await
        .with_context(|| format!("{:#}", operator.status().unwrap_or_default()["items"]))
}

/// A stream of an asset, as a browser has it.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    /// Opens it; held until there is a service.
    async fn open(address: SocketAddr, asset: &str) -> Result<Self> {
        let url = format!("http://{address}/asset_stream?asset_uuid={asset}");
        let client = reqwest::Client::builder().no_proxy().build()?;
        let response = client.get(url).send().await?;
        ensure!(response.status() == 200, "{}", response.status());
        Ok(Self {
            response,
            text: String::new(),
        })
    }

    /// Reads on until the text is there.
    async fn read_until(&mut self, text: &str) -> Result<()> {
        while !self.text.contains(text) {
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk());
            let chunk = chunk.await.context("nothing comes")??;
            let chunk = chunk.with_context(|| format!("the stream ended after {}", self.text))?;
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_come_wake_and_sleep() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path()).await?;
    broker.create_topic(SOURCE, 1).await?;
    broker.create_topic(MAP, 1).await?;
    register(&broker, "asset-1", "Weld")?;
    let on_demand = resource(&broker, "activation: OnDemand, idleSeconds: 4");
    let mut operator = Operator::start(folder.path(), &[("groups.yaml", on_demand)])?;
    let (address, _router) = router(&broker, folder.path()).await?;

    // Nobody has asked, so nothing runs but what derives.
    wait_for_state(&operator, "Weld", "Asleep").await?;
    let sleeping = operator.processes()?;
    ensure!(
        sleeping.keys().all(|name| name.starts_with("derive-")),
        "{sleeping:?}"
    );

    // A group that appears while all runs, under a name of the hard kind; a request wakes it and is held meanwhile.
    let hard = "Halle 3/Süd";
    register(&broker, "asset-2", hard)?;
    wait_for_state(&operator, hard, "Asleep").await?;
    send(&broker, "asset-2", 1)?;
    let began = Instant::now();
    let mut stream = Stream::open(address, "asset-2").await?;
    say(&format!(
        "scenario groups: woken in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    send(&broker, "asset-2", 4711)?;
    stream.read_until("4711").await?;
    wait_for_state(&operator, hard, "Running").await?;

    // For as long as somebody listens it stays awake, well beyond its idle time.
    tokio::time::sleep(Duration::from_secs(8)).await;
    send(&broker, "asset-2", 4712)?;
    stream.read_until("4712").await?;
    drop(stream);
    wait_for_state(&operator, hard, "Asleep").await?;
    wait::until("its process to end", LIMIT, async || {
        Ok(operator.processes()?.len() == sleeping.len())
    })
    .await?;
    let mut stream = Stream::open(address, "asset-2").await?;
    send(&broker, "asset-2", 4713)?;
    stream.read_until("4713").await?;
    drop(stream);

    operator.stop().await
}
