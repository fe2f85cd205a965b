//! `make bench`: figures of the forwarder, each beside what this machine allows at best.
//!
//! The ceiling ([`ceiling`]) does the least that has to be done between Kafka and NATS, on the same records, broker and
//! nodes, in turns with the forwarder. A ratio is the forwarder's figure divided by the ceiling's; where there is no
//! ceiling, divided by the target.

pub mod ceiling;
mod handover;
mod input;
mod isolation;
mod latency;
mod protocol;
mod records;
mod throughput;
mod timetable;

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::kafka::Broker;
use crate::nats::Shard;
use crate::{forwarder, process, tools};

/// Measures the forwarder beside a ceiling; prints `bench <name> <figure> <unit> ratio=<x>` lines
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the ceiling alone, on a topic and nodes that are there
    Ceiling(ceiling::CeilingArgs),
}

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Messages of each run
    #[arg(long, env = "BENCH_MESSAGES", default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of each message
    #[arg(long, env = "BENCH_BYTES", default_value_t = 200)]
    bytes: usize,
    /// Assets the messages are spread over
    #[arg(long, env = "BENCH_ASSETS", default_value_t = 10_000)]
    assets: u64,
    /// Shards while throughput is measured, each with a connection of the ceiling's too
    #[arg(long, env = "BENCH_SHARDS", default_value_t = 2)]
    shards: usize,
    /// Turns of ceiling and forwarder; the median counts
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 3)]
    rounds: usize,
    /// Seconds over which latency is measured
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 15)]
    seconds: u64,
    /// Events a second while latency is measured, in thousands
    #[arg(long, env = "BENCH_KILOEVENTS", default_value_t = 10)]
    kiloevents: u64,
    /// Another ceiling to run in place of our own, beside two shards: a program that takes `fwd --mode raw --transform ofa ...`
    #[arg(long, env = "KBENCH")]
    kbench: Option<std::path::PathBuf>,
    /// Runs only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Messages a second and CPU time, beside the ceiling
    Throughput,
    /// Producer to client, at a steady rate
    Latency,
    /// Partitions that change hands
    Handover,
    /// What the others notice while a shard is away for a minute
    Isolation,
}

impl Settings {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

impl Bench {
    /// Runs all benchmarks, or the ceiling alone.
    ///
    /// # Errors
    /// When a server or a program is missing, or something was lost.
    pub fn run(self) -> Result<()> {
        if let Some(Command::Ceiling(args)) = self.command {
            return ceiling::run(&args);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(all(&self.settings))
    }
}

async fn all(settings: &Settings) -> Result<()> {
    // Said before anything is measured.
    tools::own("forwarder")?;
    let folder = tempfile::Builder::new().prefix("ofa-bench-").tempdir()?;
    process::remove_at_end(folder.path())?;
    let broker_folder = subfolder(folder.path(), "kafka")?;
    let broker = Broker::start(&broker_folder).await?;
    if settings.wants(Part::Throughput) {
        broker.create_topic(input::TOPIC, input::PARTITIONS).await?;
        input::fill(&broker, settings)?;
        for nodes in [1, 2] {
            let folder = subfolder(folder.path(), &format!("{nodes}-node"))?;
            throughput::measure(settings, &broker, nodes, &folder).await?;
        }
    }
    if settings.wants(Part::Latency) {
        latency::measure(settings, &broker, &subfolder(folder.path(), "latency")?).await?;
    }
    if settings.wants(Part::Handover) {
        handover::measure(&broker, &subfolder(folder.path(), "handover")?).await?;
    }
    if settings.wants(Part::Isolation) {
        isolation::measure(&broker, &subfolder(folder.path(), "isolation")?).await?;
    }
    Ok(())
}

/// A forwarder of the topic's own group.
fn forwarder_settings(
    member: &str,
    topic: &str,
    broker: &Broker,
    shards: &[Shard],
) -> forwarder::Settings {
    forwarder::Settings {
        member: member.to_owned(),
        broker: broker.address(),
        topic: topic.to_owned(),
        group: topic.to_owned(),
        shards: forwarder::Settings::urls_of(shards),
        variables: Vec::new(),
    }
}

fn subfolder(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir(&path).context("a folder for a benchmark")?;
    Ok(path)
}

/// One line for people and scripts.
fn print(name: &str, figure: f64, unit: &str, ratio: f64) -> Result<()> {
    let digits = if figure >= 1000.0 { 0 } else { 2 };
    let mut out = std::io::stdout();
    writeln!(
        out,
        "bench {name} {figure:.digits$} {unit} ratio={ratio:.2}"
    )?;
    Ok(out.flush()?)
}

/// The middle one; the upper middle of an even number.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
