//! How long an event takes to the client, from the moment it is due at the producer and from Kafka's append, beside how long it
//! takes to a plain consumer of Kafka.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::timetable::{
    Arrival, Generator, Timetable, WATCHED_SUBJECT, arrivals, due_of, latencies,
    latencies_since_stamp, percentile,
};
use super::{Settings, forwarder_settings, print};
use crate::forwarder::Forwarder;
use crate::kafka::Broker;
use crate::nats::Shard;
use crate::watch::Recorder;

const TOPIC: &str = "latency";

/// A topic of its own for the consumer, so that each reads what is written while it reads.
const TOPIC_OF_CONSUMER: &str = "latency-consumer";

/// Time stamps are the broker's, of the append: in whole milliseconds, cut off, so that what is counted from them is half of one
/// too long on average.
const STAMPED_AT_APPEND: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

/// Thousands of events a second that clients watch at most.
const MOST_WATCHED: u64 = 10;

/// Left out at the beginning, while connections and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long the last events may take.
const DRAIN: Duration = Duration::from_secs(3);

/// How long a consumer waits for a record before it looks at the time, and for how long it may get none.
const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// Targets in ms at the usual rate.
const P50_TARGET: f64 = 2.0;
const P99_TARGET: f64 = 10.0;

/// Measures a plain consumer, then two shards of two nodes and one forwarder.
pub(super) async fn measure(settings: &Settings, broker: &Broker, folder: &Path) -> Result<()> {
    let measured = Duration::from_secs(settings.seconds);
    // A thousand a second are one in each of the generator's ticks.
    let rate = settings.kiloevents;
    let alone = through_kafka(broker, rate, measured).await?;
    report("kafka-alone", &alone, rate, measured)?;
    let all = through_forwarder(broker, rate, measured, folder).await?;
    report("client", &all, rate, measured)
}

/// So many thousand events a second; clients watch ten thousand of them at most, and do not take part in what is measured beyond that.
const fn timetable(rate: u64) -> Timetable {
    Timetable {
        events_a_tick: rate,
        watched_one_in: rate.div_ceil(MOST_WATCHED),
    }
}

async fn create_topic(broker: &Broker, topic: &str) -> Result<()> {
    broker
        .create_topic_with(topic, super::input::PARTITIONS, &[STAMPED_AT_APPEND])
        .await
}

async fn through_kafka(broker: &Broker, rate: u64, measured: Duration) -> Result<Vec<Arrival>> {
    create_topic(broker, TOPIC_OF_CONSUMER).await?;
    let events = rate * u64::try_from((WARM_UP + measured).as_millis())?;
    let consumer = consume(broker, events)?;
    let generator = Generator::start(
        broker,
        TOPIC_OF_CONSUMER,
        timetable(rate),
        WARM_UP + measured,
    )?;
    generator.finish()?;
    let all = tokio::task::block_in_place(|| consumer.join());
    all.map_err(|_| anyhow::anyhow!("the consumer broke down"))?
}

/// Reads so many events with a plain consumer.
fn consume(broker: &Broker, events: u64) -> Result<JoinHandle<Result<Vec<Arrival>>>> {
    let mut config = broker.settings().client_config()?;
    config
        .set("group.id", TOPIC_OF_CONSUMER)
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[TOPIC_OF_CONSUMER])?;
    Ok(std::thread::spawn(move || {
        let (mut all, mut last) = (Vec::new(), Instant::now());
        while (all.len() as u64) < events {
            // Nothing to tell is no end: changes of the group come this way too.
            let Some(record) = consumer.poll(POLL).transpose()? else {
                anyhow::ensure!(
                    last.elapsed() < PATIENCE,
                    "the consumer gets no more events"
                );
                continue;
            };
            last = Instant::now();
            let received = Timestamp::now();
            let due = due_of(record.payload().unwrap_or_default())?;
            let stamp = record.timestamp().to_millis();
            let stamp = stamp.map(Timestamp::from_millisecond).transpose()?;
            let partition = u32::try_from(record.partition())?;
            all.push(Arrival::new(due, stamp, partition, received));
        }
        Ok(all)
    }))
}

async fn through_forwarder(
    broker: &Broker,
    rate: u64,
    measured: Duration,
    folder: &Path,
) -> Result<Vec<Arrival>> {
    create_topic(broker, TOPIC).await?;
    let (mut shards, mut recorders) = (Vec::new(), Vec::new());
    for name in ["C1", "C2"] {
        let shard = Shard::start(name, 2, folder).await?;
        recorders.push(Recorder::start_on(&shard.nodes()[0], WATCHED_SUBJECT).await?);
        shards.push(shard);
    }
    let settings = forwarder_settings("latency", TOPIC, broker, &shards);
    let mut forwarder = Forwarder::start(settings, folder)?;
    forwarder.wait_ready().await?;
    let generator = Generator::start(broker, TOPIC, timetable(rate), WARM_UP + measured)?;
    let written = generator.finish()?;
    tokio::time::sleep(DRAIN).await;
    forwarder.stop().await?;

    let all = arrivals(&recorders.iter().collect::<Vec<_>>())?;
    anyhow::ensure!(
        all.len() as u64 == written,
        "{} of {written} events arrived",
        all.len()
    );
    Ok(all)
}

fn report(who: &str, all: &[Arrival], rate: u64, measured: Duration) -> Result<()> {
    let first = all.iter().map(|it| it.due).min();
    let from = first.context("no event arrived")? + SignedDuration::try_from(WARM_UP)?;
    let from_due = latencies(all.iter(), from, measured)?;
    let from_append = latencies_since_stamp(all.iter(), from, measured)?;
    for (since, counted) in [("due", from_due), ("append", from_append)] {
        for (name, share, target) in [("p50", 500, P50_TARGET), ("p99", 990, P99_TARGET)] {
            let figure = percentile(&counted, share);
            let name = format!("latency-{rate}000-{who}-{since}-{name}");
            print(&name, figure, "ms", figure / target)?;
        }
    }
    Ok(())
}
