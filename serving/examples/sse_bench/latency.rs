//! How old events are when they come.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rdkafka::producer::BaseRecord;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bench::{Bench, PAD};
use crate::clients::listen;

impl Bench {
    pub(crate) async fn latency(
        &self,
        clients: u32,
        assets: u32,
        rate: u32,
        seconds: u32,
    ) -> Result<()> {
        let (sender, mut all) = tokio::sync::mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        for client in 0..clients {
            let stream = listen(client, client % assets, "").await?;
            listening.spawn(time(stream, sender.clone()));
        }
        drop(sender);
        // Each event goes to so many clients.
        let each = clients / assets;
        let events = u64::from(rate / each * seconds);
        let begun = Instant::now();
        for event in 0..events {
            let due = Duration::from_secs_f64(event as f64 * f64::from(each) / f64::from(rate));
            // Only where it is early: the shortest sleep is a millisecond.
            if due > begun.elapsed() {
                tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            }
            let key = (event % u64::from(assets)).to_string();
            let pad = "x".repeat(PAD);
            let value = format!(
                r#"{{"ID":"temp","VALUE":21.5,"pad":"{pad}","t":{}}}"#,
                now_us()
            );
            let record = BaseRecord::to(&self.topic).key(&key).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        let took = begun.elapsed();
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(listening);
        let mut latencies = Vec::new();
        while let Some(latency) = all.recv().await {
            latencies.push(latency);
        }
        ensure!(
            latencies.len() as u64 == events * u64::from(each),
            "{} of {}",
            latencies.len(),
            events * u64::from(each)
        );
        latencies.sort_unstable();
        let quantile =
            |per_mille: usize| latencies[latencies.len() * per_mille / 1000] as f64 / 1e3;
        println!(
            "clients={clients} assets={assets} per_s={:.0} p50_ms={:.1} p99_ms={:.1} p999_ms={:.1}",
            latencies.len() as f64 / took.as_secs_f64(),
            quantile(500),
            quantile(990),
            quantile(999)
        );
        Ok(())
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
