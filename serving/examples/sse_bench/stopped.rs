//! What clients that take nothing cost the others.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::clients::{connect, count, listen, wait_for};

/// The clients that are stopped, a process of their own.
pub(crate) async fn listeners(clients: u32) -> Result<()> {
    let mut listening = JoinSet::new();
    for client in 0..clients {
        let stream = listen(client, 0, "").await?;
        listening.spawn(count(stream, Arc::default()));
    }
    println!("listening");
    while listening.join_next().await.is_some() {}
    Ok(())
}

impl Bench {
    /// Writes `events` in so many turns for each figure.
    pub(crate) async fn stopped(
        &self,
        clients: u32,
        stopped: u32,
        events: u32,
        turns: u32,
    ) -> Result<()> {
        let counted = Arc::new(AtomicU64::new(0));
        let mut listening = JoinSet::new();
        for client in 0..clients {
            let stream = listen(client, 0, "").await?;
            listening.spawn(count(stream, Arc::clone(&counted)));
        }
        let deliver = async |turns| self.deliver(clients, events, turns, &counted).await;
        // Once to warm up.
        deliver(turns).await?;
        let alone = self.cost(clients, events, deliver(turns)).await?;
        let (others, slow_before) = (Stopped::start(stopped)?, self.slow_clients().await?);
        let mut left_out_after = 0.0;
        let beside = async {
            let begun = Instant::now();
            let mut done = 0;
            // Until each takes nothing any more and the service has left it out.
            while self.slow_clients().await? < slow_before + stopped {
                done += deliver(1).await?;
            }
            left_out_after = begun.elapsed().as_secs_f64();
            Ok(done + deliver(turns.saturating_sub(done)).await?)
        };
        let beside = self.cost(clients, events, beside).await?;
        let later = self.cost(clients, events, deliver(turns)).await?;
        drop(others);
        let gone = self.cost(clients, events, deliver(turns)).await?;
        println!(
            "clients={clients} stopped={stopped} alone={alone} from_the_stop_on={beside} left_out_after_s={left_out_after:.1} later={later} gone={gone} slow_while_alone={slow_before}",
        );
        Ok(())
    }

    /// Delivers an asset's events, in so many turns. How many these were.
    async fn deliver(
        &self,
        clients: u32,
        events: u32,
        turns: u32,
        counted: &AtomicU64,
    ) -> Result<u32> {
        let wanted = u64::from(clients) * u64::from(events);
        let begun = Instant::now();
        for _ in 0..turns {
            counted.store(0, Ordering::Relaxed);
            tokio::task::block_in_place(|| self.produce(1, events))?;
            wait_for(counted, wanted, begun).await?;
        }
        Ok(turns)
    }

    /// What so many turns cost: deliveries a second, and the service's CPU seconds for a million.
    async fn cost(
        &self,
        clients: u32,
        events: u32,
        turns: impl Future<Output = Result<u32>>,
    ) -> Result<String> {
        let (begun, before) = (Instant::now(), self.cpu()?);
        let millions = f64::from(turns.await?) * f64::from(clients) * f64::from(events) / 1e6;
        let rate = millions / begun.elapsed().as_secs_f64();
        let cpu = (self.cpu()? - before) / millions;
        Ok(format!("{rate:.2}M/s,{cpu:.3}s/M"))
    }

    /// Clients that have fallen behind.
    async fn slow_clients(&self) -> Result<u32> {
        let (mut stream, _) = connect(0, "/metrics", "connection: close\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let name = "serving_slow_clients_total ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.unwrap_or("0").parse()?)
    }
}

/// A process of clients that do not run.
pub(crate) struct Stopped(Child);

impl Stopped {
    pub(crate) fn start(clients: u32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["listeners", &clients.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut word = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut word)?;
        let stopped = Self(child);
        ensure!(word == "listening\n", "the other clients do not listen");
        let pid = stopped.0.id().to_string();
        Command::new("kill").args(["-STOP", &pid]).status()?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
