//! A generator that follows a timetable, and when its events arrived.
//!
//! Latency counts from the time in the timetable, not from when the generator came round to writing an event: a system
//! that stalls the generator does not look better for it (coordinated omission).

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use ofa_crds::wire;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::Value;

use crate::kafka::Broker;
use crate::load;
use crate::watch::Recorder;

/// Events are written in equal portions, one in each tick.
const TICK: Duration = Duration::from_millis(1);

/// Assets: a plant's.
const ASSETS: u64 = 1_000;

/// The id of the events that are watched, and their subject.
const WATCHED: &str = "watched";
pub(super) const WATCHED_SUBJECT: &str = "*.watched";

/// What the generator's client keeps until Kafka takes it: some seconds at any rate.
const QUEUE: (&str, &str) = ("queue.buffering.max.messages", "2000000");

/// A steady load, and how much of it is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timetable {
    /// Events in each [`TICK`].
    pub(super) events_a_tick: u64,
    /// Of so many events one is watched.
    pub(super) watched_one_in: u64,
}

impl Timetable {
    /// All are watched.
    pub(super) const fn all_watched(events_a_tick: u64) -> Self {
        Self {
            events_a_tick,
            watched_one_in: 1,
        }
    }
}

/// How long the last events may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// A generator at work.
pub(super) struct Generator(JoinHandle<Result<u64>>);

impl Generator {
    /// Writes events by a timetable for `length`; an event's value is the time it is due, in microseconds since the Unix epoch.
    pub(super) fn start(
        broker: &Broker,
        topic: &'static str,
        timetable: Timetable,
        length: Duration,
    ) -> Result<Self> {
        let mut config = broker.producer_config()?;
        // What is measured begins at the producer's hand-over, so it must not wait for company; where there are many, a broker would
        // be busy with requests of a few records.
        let linger = if timetable.watched_one_in > 1 {
            "1"
        } else {
            "0"
        };
        config
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger)
            .set(QUEUE.0, QUEUE.1);
        let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
        let ticks = u64::try_from(length.as_millis())?;
        Ok(Self(std::thread::spawn(move || {
            let (began, began_at) = (Instant::now(), Timestamp::now());
            for tick in 0..ticks {
                let due = TICK * u32::try_from(tick)?;
                std::thread::sleep(due.saturating_sub(began.elapsed()));
                let due = u64::try_from((began_at + due).as_microsecond())?;
                for number in 0..timetable.events_a_tick {
                    let number = tick * timetable.events_a_tick + number;
                    let key = load::asset(number % ASSETS);
                    let value = if number.is_multiple_of(timetable.watched_one_in) {
                        load::event_of(WATCHED, due, began_at)
                    } else {
                        load::event(due, began_at)
                    };
                    let record = BaseRecord::to(topic).key(&key).payload(&value);
                    producer.send(record).map_err(|(error, _)| error)?;
                }
            }
            producer.flush(FLUSH_TIMEOUT)?;
            Ok((ticks * timetable.events_a_tick).div_ceil(timetable.watched_one_in))
        })))
    }

    /// Waits for the last event; returns how many were written that are watched.
    pub(super) fn finish(self) -> Result<u64> {
        let written = tokio::task::block_in_place(|| self.0.join());
        written.map_err(|_| anyhow::anyhow!("the generator broke down"))?
    }
}

/// The first arrival of an event.
pub(super) struct Arrival {
    pub(super) due: Timestamp,
    pub(super) partition: u32,
    /// Milliseconds from the time that the event was due.
    pub(super) latency: f64,
    /// Milliseconds from Kafka's time stamp, where it was told.
    pub(super) since_stamp: Option<f64>,
}

impl Arrival {
    pub(super) fn new(
        due: Timestamp,
        stamp: Option<Timestamp>,
        partition: u32,
        received: Timestamp,
    ) -> Self {
        let since = |from| received.duration_since(from).as_secs_f64() * 1000.0;
        Self {
            due,
            partition,
            latency: since(due),
            since_stamp: stamp.map(since),
        }
    }
}

/// When an event was due.
pub(super) fn due_of(payload: &[u8]) -> Result<Timestamp> {
    let due = wire::Event::from_json(payload)?.value.as_i64();
    Ok(Timestamp::from_microsecond(
        due.context("an event without its time")?,
    )?)
}

/// Kafka's time stamp of an event, as a forwarder has passed it on.
fn stamp_of(payload: &[u8]) -> Result<Option<Timestamp>> {
    let attributes = wire::Event::from_json(payload)?.attributes;
    let stamp = attributes.get("kafka_timestamp").and_then(Value::as_str);
    Ok(stamp.map(str::parse).transpose()?)
}

/// What has arrived at recorders, repetitions left out.
pub(super) fn arrivals(recorders: &[&Recorder]) -> Result<Vec<Arrival>> {
    let (mut seen, mut arrivals) = (BTreeSet::new(), Vec::new());
    for event in recorders.iter().flat_map(|recorder| recorder.received()) {
        let cursor = event.cursor.context("an event without its cursor")?;
        if !seen.insert((cursor.partition, cursor.offset)) {
            continue;
        }
        let due = due_of(&event.payload)?;
        let stamp = stamp_of(&event.payload)?;
        let arrival = Arrival::new(due, stamp, cursor.partition, event.received_at);
        arrivals.push(arrival);
    }
    Ok(arrivals)
}

/// Latencies of the arrivals that were due within `length` from `from` on, the smallest first.
pub(super) fn latencies<'a>(
    arrivals: impl Iterator<Item = &'a Arrival>,
    from: Timestamp,
    length: Duration,
) -> Result<Vec<f64>> {
    sorted(arrivals, from, length, |arrival| Some(arrival.latency))
}

/// The same from Kafka's time stamps.
pub(super) fn latencies_since_stamp<'a>(
    arrivals: impl Iterator<Item = &'a Arrival>,
    from: Timestamp,
    length: Duration,
) -> Result<Vec<f64>> {
    sorted(arrivals, from, length, |arrival| arrival.since_stamp)
}

fn sorted<'a>(
    arrivals: impl Iterator<Item = &'a Arrival>,
    from: Timestamp,
    length: Duration,
    latency: impl Fn(&Arrival) -> Option<f64>,
) -> Result<Vec<f64>> {
    let until = from + jiff::SignedDuration::try_from(length)?;
    let within = arrivals.filter(|arrival| (from..until).contains(&arrival.due));
    let mut latencies: Vec<f64> = within.filter_map(latency).collect();
    anyhow::ensure!(!latencies.is_empty(), "no event arrived of those due then");
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// The latency that `share` of a thousand do not exceed.
pub(super) fn percentile(sorted: &[f64], share: usize) -> f64 {
    let at = (sorted.len() * share / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
