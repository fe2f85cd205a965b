//! What a group's service costs: starts one on a topic of its own, lets clients listen, and tells the figures.
//!
//!     cargo build --release -p ofa-serving --bins --examples
//!     KAFKA_BROKER=127.0.0.1:9092 target/release/examples/sse_bench fan-out 1000 1 500
//!
//! With `BENCH_FEED=nats` the service takes its events through NATS: a node (`nats-server` on PATH), a forwarder, a replay service and
//! a router are started for it, and what is told is still the service's own.
//!
//! | arguments | what is told |
//! |---|---|
//! | `fan-out CLIENTS ASSETS EVENTS` | each client listens to one of the assets, each asset has EVENTS events: deliveries a second, CPU seconds for a million |
//! | `idle CLIENTS` | memory of the service for each client that waits |
//! | `storm CLIENTS EVENTS` | all clients come back at once, each having missed EVENTS events: seconds until all have all |
//! | `latency CLIENTS ASSETS RATE SECONDS [STOPPED]` | RATE deliveries a second: milliseconds from the producer's call to the client; with STOPPED, once more beside so many clients of the first asset whose process is stopped |
//! | `stopped CLIENTS STOPPED EVENTS [TURNS]` | deliveries a second to CLIENTS clients of one asset: alone, from when the process of STOPPED more is stopped, behind that, and when it has ended; and after how long all of these are left out |
//!
//! `stopped` writes EVENTS events at a time, TURNS (or ten) times for each figure: a client's queue has to hold them (2,000 are 0.5 MB of 1 MiB).
//! Until its kernel's buffers are full and half a second has passed, a stopped client costs what any other does.
#![allow(clippy::print_stdout, reason = "the line it prints is its result")]
#![allow(clippy::cast_precision_loss, reason = "figures of three digits")]

mod bench;
mod clients;
mod latency;
mod nats;
mod stopped;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::Bench;
use clients::{count, listen, wait_for};
use latency::Load;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize| -> Result<u32> { Ok(arguments.get(at).context("too few arguments")?.parse()?) };
    if arguments.first().map(String::as_str) == Some("listeners") {
        return stopped::listeners(number(1)?).await;
    }
    let bench = Bench::start().await?;
    match arguments.first().map(String::as_str) {
        Some("fan-out") => bench.fan_out(number(1)?, number(2)?, number(3)?).await,
        Some("idle") => bench.idle(number(1)?).await,
        Some("storm") => bench.storm(number(1)?, number(2)?).await,
        Some("latency") => {
            let load = Load {
                clients: number(1)?,
                assets: number(2)?,
                rate: number(3)?,
                seconds: number(4)?,
            };
            let stopped = arguments.get(5).map_or(Ok(0), |it| it.parse())?;
            bench.latency(&load, stopped).await
        }
        Some("stopped") => {
            let turns = arguments.get(4).map_or(Ok(10), |it| it.parse())?;
            bench
                .stopped(number(1)?, number(2)?, number(3)?, turns)
                .await
        }
        _ => bail!("fan-out, idle, storm, latency or stopped?"),
    }
}

impl Bench {
    async fn fan_out(&self, clients: u32, assets: u32, events: u32) -> Result<()> {
        let counted = Arc::new(AtomicU64::new(0));
        let mut listening = JoinSet::new();
        for client in 0..clients {
            let stream = listen(client, client % assets, "").await?;
            listening.spawn(count(stream, Arc::clone(&counted)));
        }
        let wanted = u64::from(clients) * u64::from(events);
        let (before, begun) = (self.cpu()?, Instant::now());
        tokio::task::block_in_place(|| self.produce(assets, events))?;
        wait_for(&counted, wanted, begun).await?;
        let (took, cpu) = (begun.elapsed().as_secs_f64(), self.cpu()? - before);
        let millions = f64::from(clients) * f64::from(events) / 1e6;
        println!(
            "clients={clients} assets={assets} deliveries={wanted} per_s={:.0} cpu_s_per_million={:.2}",
            millions * 1e6 / took,
            cpu / millions
        );
        Ok(())
    }

    async fn idle(&self, clients: u32) -> Result<()> {
        let before = self.memory()?;
        let mut listening = Vec::new();
        for client in 0..clients {
            listening.push(listen(client, client, "").await?);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let kib = (self.memory()? - before) / f64::from(clients);
        println!("clients={clients} kib_per_client={kib:.2}");
        Ok(())
    }

    async fn storm(&self, clients: u32, events: u32) -> Result<()> {
        tokio::task::block_in_place(|| self.produce(clients, events))?;
        let begun = Instant::now();
        let counted = Arc::new(AtomicU64::new(0));
        let wanted = u64::from(clients) * u64::from(events);
        // The id of one who has seen nothing yet.
        let id = format!("Last-Event-ID: {}\r\n", self.topic);
        let mut listening = JoinSet::new();
        for client in 0..clients {
            let (id, counted) = (id.clone(), Arc::clone(&counted));
            listening.spawn(async move {
                if let Ok(stream) = listen(client, client, &id).await {
                    count(stream, counted).await;
                }
            });
        }
        wait_for(&counted, wanted, begun).await?;
        let took = begun.elapsed().as_secs_f64();
        println!("clients={clients} missed={wanted} all_after_s={took:.2}");
        Ok(())
    }
}
