//! The records that throughput is measured on.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::Settings;
use crate::kafka::Broker;

pub(super) const TOPIC: &str = "bench";

pub(super) const PARTITIONS: i32 = 6;

/// How long the last records may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

const IDS: [&str; 8] = [
    "Zact",
    "Xact",
    "Yact",
    "Srpm",
    "Fovr",
    "execution",
    "avail",
    "estop",
];

/// Writes the records.
pub(super) fn fill(broker: &Broker, settings: &Settings) -> Result<()> {
    let mut config = broker.producer_config()?;
    config
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .set("batch.size", "131072")
        .set("queue.buffering.max.messages", "500000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    for number in 0..settings.messages {
        // A step that shares no divisor with the usual counts: neighbours in time are not neighbours in name.
        let key = format!("ASSET-{:07}", number.wrapping_mul(7_919) % settings.assets);
        let value = event(number, settings.bytes);
        let mut record = BaseRecord::to(TOPIC).key(&key).payload(&value);
        while let Err((error, same)) = producer.send(record) {
            let KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) = error else {
                return Err(error).context("a record is refused");
            };
            record = same;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    tokio::task::block_in_place(|| producer.flush(FLUSH_TIMEOUT)).context("records are not written")
}

/// An event as MTConnect's adapters write it, filled up to `bytes`.
fn event(number: u64, bytes: usize) -> String {
    let id = IDS[usize::try_from(number % 8).unwrap_or_default()];
    let mut text = format!(
        r#"{{"ID":"{id}","VALUE":"{}.{:03}","TYPE":"Samples","TAG":"Position","attributes":{{"timestamp":"2026-01-02T03:04:05.{:06}Z","pad":""#,
        number % 1000,
        number % 997,
        number % 1_000_000,
    );
    const END: &str = r#""}}"#;
    while text.len() + END.len() < bytes {
        text.push('x');
    }
    text + END
}
