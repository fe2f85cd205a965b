//! How long an event takes from the moment it is due at the producer to the client.
//!
//! The generator follows a timetable, and latency counts from the time in it, not from when the generator came round to
//! writing the event: a system that stalls the generator does not look better for it (coordinated omission).

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ofa_crds::wire;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::{Settings, print};
use crate::forwarder::{self, Forwarder};
use crate::kafka::Broker;
use crate::load;
use crate::nats::Shard;
use crate::watch::Recorder;

const TOPIC: &str = "latency";

/// Events a second, written in equal portions every [`TICK`].
const RATE: u64 = 10_000;

const TICK: Duration = Duration::from_millis(1);

const EVENTS_A_TICK: u64 = 10;

/// Assets: a plant's.
const ASSETS: u64 = 1_000;

/// Left out at the beginning, while connections and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long the last events may take.
const DRAIN: Duration = Duration::from_secs(3);

/// Targets in ms.
const P50_TARGET: f64 = 2.0;
const P99_TARGET: f64 = 10.0;

/// Measures with two shards of two nodes and one forwarder.
pub(super) async fn measure(settings: &Settings, broker: &Broker, folder: &Path) -> Result<()> {
    broker.create_topic(TOPIC, super::input::PARTITIONS).await?;
    let (mut shards, mut recorders) = (Vec::new(), Vec::new());
    for name in ["C1", "C2"] {
        let shard = Shard::start(name, 2, folder).await?;
        recorders.push(Recorder::start(&shard.nodes()[0]).await?);
        shards.push(shard);
    }
    let mut forwarder = Forwarder::start(forwarder_settings(broker, &shards), folder)?;
    forwarder.wait_ready().await?;
    let ticks = (WARM_UP + Duration::from_secs(settings.seconds)).as_millis();
    let generator = generate(broker, u64::try_from(ticks)?)?;
    let written = tokio::task::block_in_place(|| generator.join());
    let written = written.map_err(|_| anyhow::anyhow!("the generator broke down"))??;
    tokio::time::sleep(DRAIN).await;

    let mut latencies = Vec::new();
    for event in recorders.iter().flat_map(Recorder::received) {
        let due = wire::Event::from_json(&event.payload)?.value.as_i64();
        let due = jiff::Timestamp::from_microsecond(due.context("an event without its time")?)?;
        latencies.push((
            due,
            event.received_at.duration_since(due).as_secs_f64() * 1000.0,
        ));
    }
    anyhow::ensure!(
        latencies.len() as u64 == written,
        "{} of {written} events arrived",
        latencies.len()
    );
    let first = latencies
        .iter()
        .map(|(due, _)| *due)
        .min()
        .context("no event arrived")?;
    let mut counted: Vec<f64> = latencies
        .into_iter()
        .filter(|(due, _)| due.duration_since(first).unsigned_abs() >= WARM_UP)
        .map(|(_, latency)| latency)
        .collect();
    counted.sort_by(f64::total_cmp);
    let percentile = |share: usize| {
        counted
            .get(counted.len() * share / 1000)
            .copied()
            .unwrap_or(f64::NAN)
    };
    print(
        &format!("latency-{RATE}-p50"),
        percentile(500),
        "ms",
        percentile(500) / P50_TARGET,
    )?;
    print(
        &format!("latency-{RATE}-p99"),
        percentile(990),
        "ms",
        percentile(990) / P99_TARGET,
    )?;
    forwarder.stop().await
}

fn forwarder_settings(broker: &Broker, shards: &[Shard]) -> forwarder::Settings {
    forwarder::Settings {
        member: "latency".to_owned(),
        broker: broker.address(),
        topic: TOPIC.to_owned(),
        group: "latency".to_owned(),
        shards: forwarder::Settings::urls_of(shards),
        variables: Vec::new(),
    }
}

/// Writes events by the timetable; an event's value is the time it was due, in microseconds since the Unix epoch.
fn generate(broker: &Broker, ticks: u64) -> Result<JoinHandle<Result<u64>>> {
    let mut config = broker.producer_config()?;
    config
        .set("partitioner", "murmur2_random")
        // What is measured begins at the producer's hand-over, so it must not wait for company.
        .set("linger.ms", "0");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    Ok(std::thread::spawn(move || {
        let (began, began_at) = (Instant::now(), jiff::Timestamp::now());
        for tick in 0..ticks {
            let due = TICK * u32::try_from(tick)?;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let due = u64::try_from((began_at + due).as_microsecond())?;
            for number in 0..EVENTS_A_TICK {
                let key = load::asset((tick * EVENTS_A_TICK + number) % ASSETS);
                let value = load::event(due, began_at);
                let record = BaseRecord::to(TOPIC).key(&key).payload(&value);
                producer.send(record).map_err(|(error, _)| error)?;
            }
        }
        producer.flush(Duration::from_secs(30))?;
        Ok(ticks * EVENTS_A_TICK)
    }))
}
