//! The factory's clock: writes each event to Kafka when it is due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ofa_crds::wire;
use thiserror::Error;
use tracing::info;

use super::Factory;
use crate::produce::{MtConnectHeaders, ProduceError, Producer};

/// How often progress is logged.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Longest sleep, so that a request to stop is heeded soon.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// How long Kafka may take for what is still queued at the end: a broker's restart.
const FINISH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the factory runs, and into which topic.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Topic of the events.
    pub topic: String,
    /// Whether every asset's place is written to the topic of the Unified Namespace first.
    pub places: bool,
    /// Events due later than this are not written. `None`: until stopped.
    pub length: Option<Duration>,
}

/// Why the factory stopped early.
#[derive(Debug, Error)]
pub enum RunError {
    /// Kafka does not take the events.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

/// Registers the assets and writes their events until the time is over or `stop` is set.
/// Returns how many records Kafka has confirmed. Blocks.
///
/// An event that could not be written in time keeps the timestamp of when it was due, so that latencies
/// measured from it include the wait.
///
/// # Errors
/// When Kafka does not take everything.
pub fn run(
    mut factory: Factory,
    producer: Producer,
    pace: &Pace,
    stop: &AtomicBool,
) -> Result<u64, RunError> {
    if pace.places {
        register(&factory, &producer)?;
    }
    let (started, started_at) = (Instant::now(), Timestamp::now());
    let mut report_at = REPORT_EVERY;
    let mut value = Vec::new();
    while let Some(due) = factory.peek() {
        if pace.length.is_some_and(|length| due.at >= length) || stop.load(Ordering::Relaxed) {
            break;
        }
        let elapsed = started.elapsed();
        if elapsed >= report_at {
            report_at += REPORT_EVERY;
            let late_ms = elapsed.saturating_sub(due.at).as_millis();
            info!(
                delivered = producer.delivered(),
                late_ms, "the factory runs"
            );
        }
        if let Some(early) = due.at.checked_sub(elapsed).filter(|it| !it.is_zero()) {
            std::thread::sleep(early.min(MAX_SLEEP));
            continue;
        }
        let timestamp = format!("{:.3}", started_at + due.at);
        factory.write_next(&timestamp, &mut value);
        let uuid = factory.uuid(due.asset);
        let headers = factory
            .sequence(due.asset)
            .map(|sequence| MtConnectHeaders {
                agent: "ofa-simulator",
                instance_id: 1,
                sequence,
            });
        producer.send(&pace.topic, uuid, &value, headers)?;
    }
    Ok(producer.finish(FINISH_TIMEOUT)?)
}

/// Gives every asset its place in the Unified Namespace.
fn register(factory: &Factory, producer: &Producer) -> Result<(), ProduceError> {
    let now = Timestamp::now().as_millisecond();
    for asset in 0..factory.len() {
        let uuid = factory.uuid(asset);
        let entry = factory.place(asset).map_entry(uuid, now);
        producer.send(wire::UNS_MAP_TOPIC, uuid, &entry, None)?;
    }
    Ok(())
}
