//! How many messages a second, and at what cost, beside the ceiling.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::ceiling::Figures;
use super::{Settings, input, median, print};
use crate::forwarder::{self, Forwarder};
use crate::http;
use crate::kafka::Broker;
use crate::nats::Shard;

/// How often the forwarder is asked how far it has come: little of a run of seconds, and little work for it.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A run takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// Memory that a forwarder is to stay below, whatever the backlog, in KiB.
const MEMORY_TARGET_KIB: f64 = 64.0 * 1024.0;

/// Measures forwarder and ceiling in turns on shards of `nodes` nodes each.
pub(super) async fn measure(
    settings: &Settings,
    broker: &Broker,
    nodes: usize,
    folder: &Path,
) -> Result<()> {
    let mut shards = Vec::new();
    for number in 1..=settings.shards {
        shards.push(Shard::start(&format!("C{number}"), nodes, folder).await?);
    }
    let (mut ceilings, mut forwarders, mut memory) = (Vec::new(), Vec::new(), 0.0_f64);
    for round in 0..settings.rounds {
        ceilings.push(run_ceiling(settings, broker, &shards)?);
        let member = format!("bench-{nodes}-{round}");
        let (figures, kib) = run_forwarder(settings, broker, &shards, &member, folder).await?;
        forwarders.push(figures);
        memory = memory.max(kib);
    }
    let rate = |all: &[Figures]| median(all.iter().map(|it| it.rate).collect());
    let cpu = |all: &[Figures]| median(all.iter().map(|it| it.cpu).collect());
    let plural = if nodes == 1 { "node" } else { "nodes" };
    let count = settings.shards;
    let name = |what: &str| format!("forward-{count}x{nodes}-{plural}-{what}");
    let (best_rate, best_cpu) = (rate(&ceilings), cpu(&ceilings));
    print(&name("ceiling-rate"), best_rate, "msg/s", 1.0)?;
    print(&name("ceiling-cpu"), best_cpu, "cpu-s/M", 1.0)?;
    print(
        &name("rate"),
        rate(&forwarders),
        "msg/s",
        rate(&forwarders) / best_rate,
    )?;
    print(
        &name("cpu"),
        cpu(&forwarders),
        "cpu-s/M",
        cpu(&forwarders) / best_cpu,
    )?;
    print(
        &name("memory"),
        memory / 1024.0,
        "MiB",
        memory / MEMORY_TARGET_KIB,
    )
}

/// Runs our own ceiling, or the one that KBENCH names, in a process of its own.
fn run_ceiling(settings: &Settings, broker: &Broker, shards: &[Shard]) -> Result<Figures> {
    let first_nodes = shards.iter().filter_map(|shard| shard.nodes().first());
    let nats: Vec<String> = first_nodes
        .map(|node| node.url().replace("nats://", ""))
        .collect();
    let mut command = match &settings.kbench {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(["fwd", "--mode", "raw", "--transform", "ofa", "--n"]);
            command
        }
        None => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["ceiling", "--count"]);
            command
        }
    };
    command
        .arg(settings.messages.to_string())
        .args([
            "--brokers",
            &broker.address(),
            "--topic",
            input::TOPIC,
            "--nats",
            &nats.join(","),
        ])
        .stderr(Stdio::inherit());
    let output = tokio::task::block_in_place(|| command.output())
        .context("the ceiling cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    figures_of(&said).with_context(|| format!("the ceiling's answer is no figures: {said}"))
}

/// Both ceilings write `... <rate> msg/s ... self <cpu> cpu-s/M ...`.
fn figures_of(text: &str) -> Option<Figures> {
    let before = |unit: &str| -> Option<f64> {
        let (front, _) = text.split_once(unit)?;
        front.split_whitespace().next_back()?.parse().ok()
    };
    Some(Figures {
        rate: before(" msg/s")?,
        cpu: before(" cpu-s/M")?,
    })
}

/// Runs a forwarder on the whole topic, from the first record it takes until the last one is confirmed. Returns its
/// peak memory in KiB too.
async fn run_forwarder(
    settings: &Settings,
    broker: &Broker,
    shards: &[Shard],
    member: &str,
    folder: &Path,
) -> Result<(Figures, f64)> {
    let started = forwarder::Settings {
        member: member.to_owned(),
        broker: broker.address(),
        topic: input::TOPIC.to_owned(),
        group: member.to_owned(),
        shards: forwarder::Settings::urls_of(shards),
        variables: Vec::new(),
    };
    let mut forwarder = Forwarder::start(started, folder)?;
    forwarder.wait_ready().await?;
    let deadline = Instant::now() + LIMIT;
    let mut began: Option<(Instant, Duration, u64)> = None;
    loop {
        let metrics = forwarder.metrics().await?;
        let consumed = count(&metrics, "asset_forwarder_kafka_messages_consumed_total");
        let now = (Instant::now(), forwarder.process().cpu_time()?, consumed);
        if consumed > 0 && began.is_none() {
            began = Some(now);
        }
        let confirmed = count(&metrics, "asset_forwarder_nats_messages_confirmed_total");
        if let Some((at, cpu, before)) = began
            && confirmed >= settings.messages
        {
            let kib = forwarder.process().peak_memory_kib()?;
            let figures = Figures::new(confirmed - before, now.0 - at, now.1.saturating_sub(cpu));
            forwarder.stop().await?;
            return Ok((figures, u32::try_from(kib).map_or(f64::INFINITY, f64::from)));
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the forwarder has confirmed {confirmed} messages only"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count.
fn count(metrics: &str, name: &str) -> u64 {
    http::metric(metrics, name, "") as u64
}
