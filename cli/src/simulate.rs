//! `ofa simulate`: a factory of machines, or a recording many times over.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::wire;
use tracing::warn;

use super::{output, stop};
use ofa_client::produce::{ProduceError, Producer, TopicWanted, ensure_topic};
use ofa_client::simulator::{self, Factory, Pace, Recording};

/// Batches fill within this time; it is part of the latency that clients see.
const LINGER: Duration = Duration::from_millis(1);

/// Rest before a broker that is still starting is asked again.
const BROKER_RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Number of machines
    #[arg(long, env = "ASSETS", default_value_t = 1000)]
    assets: usize,
    /// Events a second of all machines together; 5000 by default, as recorded with --replay
    #[arg(long, env = "RATE")]
    rate: Option<f64>,
    /// End after this many seconds; by default when stopped
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Replay this recording (JSON lines, may end in .gz) under as many UUIDs in place of simulated machines
    #[arg(long, env = "REPLAY", value_name = "FILE")]
    replay: Option<PathBuf>,
    /// The same seed produces the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kafka topic
    #[arg(long, env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    topic: String,
    /// Create the topic, and the one of the Unified Namespace, unless they exist
    #[arg(long)]
    create_topic: bool,
    /// Partitions of a created topic
    #[arg(long, default_value_t = 6)]
    partitions: u16,
    /// How many seconds to wait for a broker that is not there yet
    #[arg(long, default_value_t = 60, value_name = "S")]
    patience: u64,
    #[command(flatten)]
    kafka: KafkaSettings,
}

/// Without --rate: as much as two small cores carry, broker and clients beside it.
const DEFAULT_RATE: f64 = 5000.0;

impl SimulateArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let factory = self.factory()?;
        let producer = tokio::select! {
            producer = self.connect() => producer?,
            () = stop::requested() => return Ok(()),
        };
        let pace = Pace {
            topic: self.topic.clone(),
            places: has_topic_of_places(&producer),
            length: self.seconds.map(Duration::from_secs_f64),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        tokio::spawn(async move {
            stop::requested().await;
            stopped.store(true, Ordering::Relaxed);
        });
        let run = move || simulator::run(factory, producer, &pace, &stop);
        let written = tokio::task::spawn_blocking(run).await??;
        output::line(format_args!("{written} records written"))
    }

    fn factory(&self) -> anyhow::Result<Factory> {
        ensure!(self.assets > 0, "--assets must be at least 1");
        let is_positive = |it: f64| it.is_finite() && it > 0.0;
        ensure!(self.rate.is_none_or(is_positive), "--rate must be above 0");
        ensure!(
            self.seconds.is_none_or(is_positive),
            "--seconds must be above 0"
        );
        Ok(
            match self.replay.as_ref().filter(|it| !it.as_os_str().is_empty()) {
                Some(path) => {
                    let recording = Arc::new(Recording::open(path)?);
                    Factory::replayed(&recording, self.assets, self.rate, self.seed)
                }
                None => {
                    Factory::simulated(self.assets, self.rate.unwrap_or(DEFAULT_RATE), self.seed)
                }
            },
        )
    }

    /// Waits for a broker, and creates the topics if that is wanted.
    async fn connect(&self) -> anyhow::Result<Producer> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.patience);
        let mut said = false;
        loop {
            match self.try_connect().await {
                Ok(producer) => return Ok(producer),
                Err(ProduceError::Unreachable { .. }) if tokio::time::Instant::now() < deadline => {
                    if !said {
                        warn!(brokers = self.kafka.brokers, "waiting for a Kafka broker");
                    }
                    said = true;
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(BROKER_RETRY).await;
        }
    }

    async fn try_connect(&self) -> Result<Producer, ProduceError> {
        let events = TopicWanted {
            name: &self.topic,
            partitions: self.partitions,
            compacted: false,
        };
        let places = TopicWanted {
            name: wire::UNS_MAP_TOPIC,
            partitions: 1,
            compacted: true,
        };
        if self.create_topic {
            ensure_topic(&self.kafka, events).await?;
            ensure_topic(&self.kafka, places).await?;
        }
        let producer = Producer::new(&self.kafka, LINGER)?;
        // One short question at the start, when nothing else goes on.
        tokio::task::block_in_place(|| producer.check_topic(&self.topic))?;
        Ok(producer)
    }
}

/// Without that topic the events are written all the same.
fn has_topic_of_places(producer: &Producer) -> bool {
    match tokio::task::block_in_place(|| producer.check_topic(wire::UNS_MAP_TOPIC)) {
        Ok(()) => true,
        Err(error) => {
            warn!(%error, "the machines get no place in the Unified Namespace");
            false
        }
    }
}
