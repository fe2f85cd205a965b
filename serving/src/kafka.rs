//! Clients of Kafka that are read by hand: no group, no commits, and a log of their own words at level debug.

use ofa_crds::kafka::{KafkaSettings, KafkaSettingsError, Quiet};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use thiserror::Error;

/// A consumer whose errors are those that its calls return.
pub(crate) type Consumer = BaseConsumer<Quiet>;

/// No consumer could be made.
#[derive(Debug, Error)]
pub(crate) enum ConsumerError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// Kafka's client refused.
    #[error("no client of Kafka can be made: {0}; check the Kafka settings")]
    Client(#[from] KafkaError),
}

/// A client that may ask for the positions of a consumer group. It never joins.
///
/// # Errors
/// When the settings are unusable.
pub(crate) fn reader_of_positions(
    kafka: &KafkaSettings,
    group: &str,
) -> Result<Consumer, ConsumerError> {
    let mut config = kafka.client_config()?;
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false");
    Ok(config.create_with_context(Quiet)?)
}

/// A consumer whose partitions are assigned by hand, and that tells the end of each.
///
/// # Errors
/// When the settings are unusable.
pub(crate) fn consumer(
    kafka: &KafkaSettings,
    purpose: &str,
    settings: &[(&str, &str)],
) -> Result<Consumer, ConsumerError> {
    let mut config = kafka.client_config()?;
    config
        // Required by the client, not used: nothing is committed.
        .set("group.id", format!("ofa_serving_{purpose}"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.error.backoff.ms", "100");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    Ok(config.create_with_context(Quiet)?)
}
