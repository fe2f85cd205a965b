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

/// Turns of writing for each figure, which take some seconds together: a single one is over in less than one.
const TURNS: u32 = 10;

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
    pub(crate) async fn stopped(&self, clients: u32, stopped: u32, events: u32) -> Result<()> {
        let counted = Arc::new(AtomicU64::new(0));
        let mut listening = JoinSet::new();
        for client in 0..clients {
            let stream = listen(client, 0, "").await?;
            listening.spawn(count(stream, Arc::clone(&counted)));
        }
        let rate = async |turns| self.rate(clients, events, turns, &counted).await;
        // Once to warm up.
        rate(TURNS).await?;
        let alone = rate(TURNS).await?;
        let others = Stopped::start(stopped)?;
        let (mut filling, begun) = (0, Instant::now());
        // Until each takes nothing any more and the service has left it out.
        while self.slow_clients().await? < stopped {
            rate(1).await?;
            filling += 1;
        }
        let filled_after = begun.elapsed().as_secs_f64();
        rate(TURNS.saturating_sub(filling)).await?;
        let turns = filling.max(TURNS);
        let deliveries = u64::from(clients) * u64::from(events) * u64::from(turns);
        let beside = deliveries as f64 / begun.elapsed().as_secs_f64();
        let later = rate(TURNS).await?;
        drop(others);
        let gone = rate(TURNS).await?;
        println!(
            "clients={clients} stopped={stopped} alone_per_s={alone:.0} from_the_stop_on_per_s={beside:.0} left_out_after_s={filled_after:.1} later_per_s={later:.0} gone_per_s={gone:.0}",
        );
        Ok(())
    }

    /// Deliveries a second of events of one asset.
    async fn rate(
        &self,
        clients: u32,
        events: u32,
        turns: u32,
        counted: &AtomicU64,
    ) -> Result<f64> {
        let wanted = u64::from(clients) * u64::from(events);
        let begun = Instant::now();
        for _ in 0..turns {
            counted.store(0, Ordering::Relaxed);
            tokio::task::block_in_place(|| self.produce(1, events))?;
            wait_for(counted, wanted, begun).await?;
        }
        Ok((wanted * u64::from(turns)) as f64 / begun.elapsed().as_secs_f64())
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
