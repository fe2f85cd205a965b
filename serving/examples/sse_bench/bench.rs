//! The service that is measured, and its topic.

use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::clients::{LIMIT, PORT, wait_ready};
use crate::nats::{self, NatsFeed};

/// Filler that makes an event as large as a sample of a machine tool: 200 bytes.
pub(crate) const PAD: usize = 130;

pub(crate) struct Bench {
    service: Child,
    pub(crate) producer: ThreadedProducer<DefaultProducerContext>,
    pub(crate) topic: String,
    /// What feeds the service where that is not the topic.
    _feed: Option<NatsFeed>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

impl Bench {
    pub(crate) async fn start() -> Result<Self> {
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
        let feed = match std::env::var("BENCH_FEED").as_deref() {
            Ok("nats") => Some(NatsFeed::start(&broker, &topic).await?),
            Ok(other) => bail!("BENCH_FEED={other}: nats, or not set"),
            Err(_) => None,
        };
        let mut service = program("serving")?;
        service
            .args(["group", "--group=bench", "--log-level=warn"])
            .env("KAFKA_BROKER", &broker)
            .env("GROUP_TOPIC", &topic)
            .env("PORT", PORT.to_string());
        if feed.is_some() {
            service.env("NATS_ROUTER_URL", nats::ROUTER_URL);
        }
        let service = service
            .spawn()
            .context("serving is built beside this program")?;
        let bench = Self {
            service,
            producer: config.create()?,
            topic,
            _feed: feed,
        };
        wait_ready(PORT).await?;
        Ok(bench)
    }

    pub(crate) fn produce(&self, assets: u32, events: u32) -> Result<()> {
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

    /// CPU seconds that the service has taken.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.service.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<f64>);
        let user = ticks.next().context("no user time")??;
        let system = ticks.next().context("no system time")??;
        // Hundredths of a second on every Linux of today.
        Ok((user + system) / 100.0)
    }

    /// KiB of memory that the service holds.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.service.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
        Ok(kib.parse()?)
    }
}

/// A program that is built beside this one.
pub(crate) fn program(name: &str) -> Result<Command> {
    let path = std::env::current_exe()?.with_file_name("..").join(name);
    Ok(Command::new(path))
}
