//! Writing events to Kafka as OpenFactory's core does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ofa_crds::kafka::{KafkaSettings, KafkaSettingsError};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;
use serde_json::{Value, json};
use thiserror::Error;

/// How long a broker may take to answer a question about a topic.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Rest while the producer's queue is full.
const QUEUE_REST: Duration = Duration::from_millis(1);

/// Why nothing can be produced.
#[derive(Debug, Error)]
pub enum ProduceError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// The client refuses its configuration.
    #[error("the Kafka client cannot be set up: {0}")]
    Setup(KafkaError),
    /// No broker answers.
    #[error(
        "no Kafka broker answers at {brokers}: {source}; start it, or name another with KAFKA_BROKER"
    )]
    Unreachable {
        /// The brokers asked.
        brokers: String,
        /// Why.
        source: KafkaError,
    },
    /// The topic does not exist.
    #[error("Kafka has no topic {0}; create it, for instance with `ofa simulate --create-topic`")]
    NoTopic(String),
    /// The topic cannot be created.
    #[error("the topic {topic} cannot be created: {reason}")]
    Create {
        /// The topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// A record was refused.
    #[error("Kafka does not take a record: {0}")]
    Record(KafkaError),
    /// Records that Kafka has not confirmed.
    #[error("{count} records were not written: {reason}")]
    Undelivered {
        /// How many.
        count: u64,
        /// The last reason.
        reason: String,
    },
}

/// An event in OpenFactory's JSON, with upper-case members as its core writes them.
#[must_use]
pub fn event_json(id: &str, value: &Value, tag: &str, kind: &str, timestamp: &str) -> Vec<u8> {
    let attributes = json!({ "timestamp": timestamp });
    json!({ "ID": id, "VALUE": value, "TAG": tag, "TYPE": kind, "attributes": attributes })
        .to_string()
        .into_bytes()
}

/// Reads a value as a person types it: a number where it is one, otherwise text.
#[must_use]
pub fn scalar(text: &str) -> Value {
    match text.parse::<serde_json::Number>() {
        Ok(number) => Value::Number(number),
        Err(_) => Value::String(text.to_owned()),
    }
}

/// MTConnect's headers of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtConnectHeaders<'a> {
    /// Name of the agent.
    pub agent: &'a str,
    /// The agent's run.
    pub instance_id: u64,
    /// Number of the observation in that run.
    pub sequence: u64,
}

/// What became of the records.
#[derive(Debug, Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
    reason: Mutex<String>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                *self.reason.lock() = error.to_string();
            }
        }
    }
}

/// Writes records: every one once and in order, partitioned as by OpenFactory's core.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    brokers: String,
}

impl Producer {
    /// A producer that waits up to `linger` to fill a batch.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn new(settings: &KafkaSettings, linger: Duration) -> Result<Self, ProduceError> {
        let mut config = settings.client_config()?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // As OpenFactory's core: an asset's records all go to one partition.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger.as_millis().to_string());
        let inner = config
            .create_with_context(Deliveries::default())
            .map_err(ProduceError::Setup)?;
        Ok(Self {
            inner,
            brokers: settings.brokers.clone(),
        })
    }

    /// Checks that a broker answers and has the topic. Blocks.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_topic(&self, topic: &str) -> Result<(), ProduceError> {
        let metadata = self
            .inner
            .client()
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .map_err(|source| ProduceError::Unreachable {
                brokers: self.brokers.clone(),
                source,
            })?;
        let exists = metadata
            .topics()
            .iter()
            .any(|it| it.name() == topic && it.error().is_none());
        if exists {
            Ok(())
        } else {
            Err(ProduceError::NoTopic(topic.to_owned()))
        }
    }

    /// Queues a record; waits while the queue is full. Blocks.
    ///
    /// # Errors
    /// When the record can never be written: too large, or the client has failed for good.
    pub fn send(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
        headers: Option<MtConnectHeaders<'_>>,
    ) -> Result<(), ProduceError> {
        let mut record = BaseRecord::to(topic).key(key).payload(value);
        if let Some(headers) = headers {
            record = record.headers(kafka_headers(headers));
        }
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    std::thread::sleep(QUEUE_REST);
                }
                Err((error, _)) => return Err(ProduceError::Record(error)),
            }
        }
    }

    fn deliveries(&self) -> &Deliveries {
        self.inner.client().context()
    }

    /// Records that Kafka has confirmed.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.deliveries().delivered.load(Ordering::Relaxed)
    }

    /// Waits until Kafka has everything. Returns how many records it has confirmed. Blocks.
    ///
    /// # Errors
    /// When some were not written within `timeout`.
    pub fn finish(self, timeout: Duration) -> Result<u64, ProduceError> {
        let flushed = self.inner.flush(Timeout::After(timeout));
        let waiting = u64::try_from(self.inner.in_flight_count()).unwrap_or(0);
        let count = self.deliveries().failed.load(Ordering::Relaxed) + waiting;
        if count == 0 && flushed.is_ok() {
            return Ok(self.delivered());
        }
        let mut reason = self.deliveries().reason.lock().clone();
        if reason.is_empty() {
            reason = format!("no broker confirms them at {}", self.brokers);
        }
        Err(ProduceError::Undelivered { count, reason })
    }
}

fn kafka_headers(headers: MtConnectHeaders<'_>) -> OwnedHeaders {
    let (instance, sequence) = (
        headers.instance_id.to_string(),
        headers.sequence.to_string(),
    );
    let header = |key, value| Header {
        key,
        value: Some(value),
    };
    OwnedHeaders::new_with_capacity(3)
        .insert(header("agent", headers.agent))
        .insert(header("instanceID", &instance))
        .insert(header("sequence", &sequence))
}

/// A topic to be made.
#[derive(Debug, Clone, Copy)]
pub struct TopicWanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Number of partitions.
    pub partitions: u16,
    /// Whether only the newest record of each key is kept.
    pub compacted: bool,
}

/// Creates a topic unless it exists.
///
/// # Errors
/// When no broker answers or it refuses.
pub async fn ensure_topic(
    settings: &KafkaSettings,
    wanted: TopicWanted<'_>,
) -> Result<(), ProduceError> {
    let TopicWanted {
        name,
        partitions,
        compacted,
    } = wanted;
    let admin: AdminClient<DefaultClientContext> = settings
        .client_config()?
        .create()
        .map_err(ProduceError::Setup)?;
    let policy = if compacted { "compact" } else { "delete" };
    let topic = NewTopic::new(name, i32::from(partitions), TopicReplication::Fixed(-1))
        .set("cleanup.policy", policy);
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let results = admin
        .create_topics([&topic], &options)
        .await
        .map_err(|source| ProduceError::Unreachable {
            brokers: settings.brokers.clone(),
            source,
        })?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(ProduceError::Create {
                    topic: name.to_owned(),
                    reason: code.to_string(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_openfactory_writes_them() {
        let event = event_json(
            "temp",
            &scalar("21.5"),
            "Temperature",
            "Samples",
            "2026-01-02T03:04:05.678Z",
        );
        let read = ofa_crds::wire::Event::from_json(&event).unwrap();
        assert_eq!(read.value, json!(21.5));
        assert_eq!(read.id.as_deref(), Some("temp"));
        assert_eq!(read.timestamp(), Some("2026-01-02T03:04:05.678Z"));
    }

    #[test]
    fn what_is_no_number_is_text() {
        assert_eq!(scalar("-3"), json!(-3));
        assert_eq!(scalar("AVAILABLE"), json!("AVAILABLE"));
        assert_eq!(scalar("007"), json!("007"));
        assert_eq!(scalar(""), json!(""));
    }
}
