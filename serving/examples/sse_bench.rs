//! What a group's service costs: starts one on a topic of its own, lets clients listen, and tells the figures.
//!
//!     cargo build --release -p ofa-serving --bins --examples
//!     KAFKA_BROKER=127.0.0.1:9092 target/release/examples/sse_bench fan-out 1000 1 500
//!
//! | arguments | what is told |
//! |---|---|
//! | `fan-out CLIENTS ASSETS EVENTS` | each client listens to one of the assets, each asset has EVENTS events: deliveries a second, CPU seconds for a million |
//! | `idle CLIENTS` | memory of the service for each client that waits |
//! | `storm CLIENTS EVENTS` | all clients come back at once, each having missed EVENTS events: seconds until all have all |
//! | `latency CLIENTS ASSETS RATE SECONDS` | RATE deliveries a second: milliseconds from the producer's call to the client |
//! | `stopped CLIENTS STOPPED EVENTS` | deliveries a second to CLIENTS clients of one asset: alone, while the buffers of STOPPED more whose process is stopped fill up, and then |
#![allow(clippy::print_stdout, reason = "the line it prints is its result")]
#![allow(clippy::cast_precision_loss, reason = "figures of three digits")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const PORT: u16 = 15_555;

/// Filler that makes an event as large as a sample of a machine tool: 200 bytes.
const PAD: usize = 130;

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize| -> Result<u32> { Ok(arguments.get(at).context("too few arguments")?.parse()?) };
    if arguments.first().map(String::as_str) == Some("listeners") {
        return listeners(number(1)?).await;
    }
    let bench = Bench::start().await?;
    match arguments.first().map(String::as_str) {
        Some("fan-out") => bench.fan_out(number(1)?, number(2)?, number(3)?).await,
        Some("idle") => bench.idle(number(1)?).await,
        Some("storm") => bench.storm(number(1)?, number(2)?).await,
        Some("latency") => {
            let (rate, seconds) = (number(3)?, number(4)?);
            bench.latency(number(1)?, number(2)?, rate, seconds).await
        }
        Some("stopped") => bench.stopped(number(1)?, number(2)?, number(3)?).await,
        _ => bail!("fan-out, idle, storm, latency or stopped?"),
    }
}

/// The clients that are stopped, a process of their own.
async fn listeners(clients: u32) -> Result<()> {
    let mut listening = JoinSet::new();
    for client in 0..clients {
        let stream = listen(client, 0, "").await?;
        listening.spawn(count(stream, Arc::default()));
    }
    println!("listening");
    while listening.join_next().await.is_some() {}
    Ok(())
}

struct Bench {
    service: Child,
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

impl Bench {
    async fn start() -> Result<Self> {
        let broker = std::env::var("KAFKA_BROKER")?;
        let topic = format!("sse_bench_{}", std::process::id());
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &broker)
            .set("queue.buffering.max.messages", "1000000")
            .set("linger.ms", "1");
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
        for made in admin.create_topics([&new], &AdminOptions::new()).await? {
            made.map_err(|(_, code)| anyhow::anyhow!("{code}"))?;
        }
        let program = std::env::current_exe()?
            .with_file_name("..")
            .join("serving");
        let service = Command::new(program)
            .args(["group", "--group=bench", "--log-level=warn"])
            .env("KAFKA_BROKER", &broker)
            .env("GROUP_TOPIC", &topic)
            .env("PORT", PORT.to_string())
            .spawn()
            .context("serving is built beside this program")?;
        let bench = Self {
            service,
            producer: config.create()?,
            topic,
        };
        let begun = Instant::now();
        while connect(0, "/ready", "").await?.1 != 200 {
            ensure!(begun.elapsed() < LIMIT, "the service does not get ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(bench)
    }

    fn produce(&self, assets: u32, events: u32) -> Result<()> {
        let pad = "x".repeat(PAD);
        let value = format!(
            r#"{{"ID":"temp","VALUE":21.5,"TAG":"Temperature","TYPE":"Samples","pad":"{pad}"}}"#
        );
        for asset in (0..events).flat_map(|_| 0..assets) {
            let key = asset.to_string();
            let mut record = BaseRecord::to(&self.topic).key(&key).payload(&value);
            while let Err((_, back)) = self.producer.send(record) {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(self.producer.flush(LIMIT)?)
    }

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

    async fn latency(&self, clients: u32, assets: u32, rate: u32, seconds: u32) -> Result<()> {
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

    async fn stopped(&self, clients: u32, stopped: u32, events: u32) -> Result<()> {
        let counted = Arc::new(AtomicU64::new(0));
        let mut listening = JoinSet::new();
        for client in 0..clients {
            let stream = listen(client, 0, "").await?;
            listening.spawn(count(stream, Arc::clone(&counted)));
        }
        let mut rates = Vec::new();
        for _ in 0..2 {
            rates.push(self.rate(clients, events, &counted).await?);
        }
        let others = Stopped::start(stopped)?;
        let filling = self.rate(clients, events, &counted).await?;
        // Until each has fallen so far behind that the service has closed it.
        while self.slow_clients().await? < stopped {
            self.rate(clients, events, &counted).await?;
        }
        let after = self.rate(clients, events, &counted).await?;
        drop(others);
        println!(
            "clients={clients} stopped={stopped} alone_per_s={:.0},{:.0} while_they_fill_up_per_s={filling:.0} then_per_s={after:.0}",
            rates[0], rates[1]
        );
        Ok(())
    }

    /// Deliveries a second of events of one asset.
    async fn rate(&self, clients: u32, events: u32, counted: &AtomicU64) -> Result<f64> {
        let wanted = u64::from(clients) * u64::from(events);
        counted.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        tokio::task::block_in_place(|| self.produce(1, events))?;
        wait_for(counted, wanted, begun).await?;
        Ok(wanted as f64 / begun.elapsed().as_secs_f64())
    }

    /// Clients that the service has closed since they were too slow.
    async fn slow_clients(&self) -> Result<u32> {
        let (mut stream, _) = connect(0, "/metrics", "connection: close\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let name = "serving_slow_clients_total ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.unwrap_or("0").parse()?)
    }

    /// CPU seconds that the service has taken.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.service.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<f64>);
        let user = ticks.next().context("no user time")??;
        let system = ticks.next().context("no system time")??;
        // Hundredths of a second on every Linux of today.
        Ok((user + system) / 100.0)
    }

    /// KiB of memory that the service holds.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.service.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
        Ok(kib.parse()?)
    }
}

/// A process of clients that do not run.
struct Stopped(Child);

impl Stopped {
    fn start(clients: u32) -> Result<Self> {
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

async fn wait_for(counted: &AtomicU64, wanted: u64, begun: Instant) -> Result<()> {
    while counted.load(Ordering::Relaxed) < wanted {
        ensure!(begun.elapsed() < LIMIT, "{counted:?} of {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn listen(client: u32, asset: u32, headers: &str) -> Result<TcpStream> {
    let path = format!("/asset_stream?asset_uuid={asset}");
    let (stream, status) = connect(client, &path, headers).await?;
    ensure!(status == 200, "client {client}: {status}");
    Ok(stream)
}

/// Sends a request, from one of many addresses since one has too few ports, and reads the answer's first bytes.
async fn connect(client: u32, path: &str, headers: &str) -> Result<(TcpStream, u16)> {
    let begun = Instant::now();
    let mut stream = loop {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("127.0.0.{}:0", 2 + client % 100).parse()?)?;
        match socket.connect(format!("127.0.0.1:{PORT}").parse()?).await {
            Ok(stream) => break stream,
            Err(error) if begun.elapsed() > LIMIT => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    let status = std::str::from_utf8(&first[9..])?.parse()?;
    Ok((stream, status))
}

/// Counts events as they come.
async fn count(mut stream: TcpStream, counted: Arc<AtomicU64>) {
    const MARK: &[u8] = b"event: asset_update";
    let mut buffer = vec![0; 16 * 1024];
    let mut kept = 0;
    while let Ok(read) = stream.read(&mut buffer[kept..]).await {
        if read == 0 {
            return;
        }
        let end = kept + read;
        let found = buffer[..end]
            .windows(MARK.len())
            .filter(|part| *part == MARK);
        counted.fetch_add(found.count() as u64, Ordering::Relaxed);
        // A mark may come in two parts; what is kept is too short for one that was counted.
        kept = (MARK.len() - 1).min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}
