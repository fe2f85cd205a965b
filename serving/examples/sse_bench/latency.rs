//! How old events are when they come.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rdkafka::producer::BaseRecord;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bench::{Bench, PAD};
use crate::clients::listen;
use crate::stopped::Stopped;

impl Bench {
    /// Tells it for clients by themselves, and where there are to be clients that take nothing, once more with those beside them.
    pub(crate) async fn latency(&self, load: &Load, stopped: u32) -> Result<()> {
        println!("{load} {}", self.ages(load).await?);
        if stopped > 0 {
            let beside = Stopped::start(stopped)?;
            println!("{load} stopped={stopped} {}", self.ages(load).await?);
            drop(beside);
        }
        Ok(())
    }

    async fn ages(&self, load: &Load) -> Result<Ages> {
        let (sender, mut all) = tokio::sync::mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        for client in 0..load.clients {
            let stream = listen(client, client % load.assets, "").await?;
            listening.spawn(time(stream, sender.clone()));
        }
        drop(sender);
        let took = self.produce_paced(load).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(listening);
        let mut micros = Vec::new();
        while let Some(age) = all.recv().await {
            micros.push(age);
        }
        let wanted = load.events() * u64::from(load.each());
        ensure!(
            micros.len() as u64 == wanted,
            "{} of {wanted}",
            micros.len()
        );
        micros.sort_unstable();
        Ok(Ages { micros, took })
    }

    async fn produce_paced(&self, load: &Load) -> Result<Duration> {
        let begun = Instant::now();
        for event in 0..load.events() {
            let before = event as f64 * f64::from(load.each());
            let due = Duration::from_secs_f64(before / f64::from(load.rate));
            // Only where it is early: the shortest sleep is a millisecond.
            if due > begun.elapsed() {
                tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            }
            let key = (event % u64::from(load.assets)).to_string();
            let pad = "x".repeat(PAD);
            let value = format!(
                r#"{{"ID":"temp","VALUE":21.5,"pad":"{pad}","t":{}}}"#,
                now_us()
            );
            let record = BaseRecord::to(&self.topic).key(&key).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(begun.elapsed())
    }
}

/// How much is delivered.
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) assets: u32,
    /// Deliveries a second.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

impl Load {
    /// How many clients each event goes to.
    fn each(&self) -> u32 {
        self.clients / self.assets
    }

    fn events(&self) -> u64 {
        u64::from(self.rate / self.each() * self.seconds)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clients={} assets={}", self.clients, self.assets)
    }
}

/// How old events were when they came, the youngest first.
struct Ages {
    micros: Vec<u64>,
    took: Duration,
}

impl Ages {
    fn quantile_ms(&self, per_mille: usize) -> f64 {
        self.micros[self.micros.len() * per_mille / 1000] as f64 / 1e3
    }
}

impl fmt::Display for Ages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "per_s={:.0} p50_ms={:.1} p99_ms={:.1} p999_ms={:.1}",
            self.micros.len() as f64 / self.took.as_secs_f64(),
            self.quantile_ms(500),
            self.quantile_ms(990),
            self.quantile_ms(999)
        )
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// Tells the age of each event when it comes, in microseconds.
async fn time(mut stream: TcpStream, ages: tokio::sync::mpsc::UnboundedSender<u64>) {
    const MARK: &str = "\"t\":";
    let mut text = String::new();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let now = now_us();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        while let Some(begin) = text.find(MARK) {
            let rest = &text[begin + MARK.len()..];
            let Some(end) = rest.find('}') else { break };
            if let Ok(sent) = rest[..end].parse::<u64>() {
                let _ = ages.send(now.saturating_sub(sent));
            }
            text.drain(..begin + MARK.len() + end);
        }
        if text.len() > 64 * 1024 {
            text.clear();
        }
    }
}
