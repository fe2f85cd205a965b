//! Why Kafka cannot be read.

use ofa_crds::kafka::{KafkaSettingsError, WholeTopicError};
use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::kafka::BrokerError;

/// Why Kafka cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// A topic cannot be read beside the group.
    #[error(transparent)]
    WholeTopic(#[from] WholeTopicError),
    /// The broker does not answer.
    #[error(
        "Kafka at {brokers} cannot be reached ({source}); check KAFKA_BROKER and that the broker runs"
    )]
    Unreachable {
        /// The address in use.
        brokers: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// There is no such topic.
    #[error(
        "Kafka at {brokers} has no topic {topic}; create it, or set KAFKA_TOPIC to the one to read"
    )]
    NoTopic {
        /// The address in use.
        brokers: String,
        /// The topic.
        topic: String,
    },
    /// The broker shares no partitions out.
    #[error(
        "Kafka at {brokers} cannot share partitions out itself; KAFKA_GROUP_PROTOCOL=consumer (spec.groupProtocol of a ForwarderPool) takes Kafka 4.0 or newer with its feature group.version on; until then, set it to classic"
    )]
    NoGroupProtocol {
        /// The address in use.
        brokers: String,
    },
    /// The client can do nothing more; a new process can.
    #[error("Kafka's client reports a fatal error: {0}; the forwarder has to be started again")]
    Fatal(String),
    /// The settings do not let a broker be read from.
    #[error("Kafka cannot be read: {0}")]
    Fetch(String),
    /// Something the client refused to do.
    #[error("Kafka's client cannot {what}: {source}")]
    Client {
        /// What was attempted.
        what: &'static str,
        /// librdkafka's reason.
        source: KafkaError,
    },
}

impl From<BrokerError> for SourceError {
    fn from(error: BrokerError) -> Self {
        Self::Fetch(error.to_string())
    }
}
