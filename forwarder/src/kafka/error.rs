//! Why a broker cannot be asked.

use std::path::PathBuf;

use kafka_protocol::error::ResponseError;
use ofa_crds::kafka::KafkaSettingsError;
use thiserror::Error;

/// Why a broker cannot be asked. All but those of the settings may pass.
#[derive(Debug, Error)]
pub(crate) enum BrokerError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("the broker's answer cannot be read: {0:#}")]
    Protocol(anyhow::Error),
    #[error("the broker's answers are out of step with the requests")]
    OutOfStep,
    #[error("the broker announces an answer of {0} bytes, which cannot be; is it a Kafka broker?")]
    TooLong(usize),
    #[error(
        "the broker takes request {key} in no version from {oldest} to {newest}; Kafka 2.5 to 4.x does"
    )]
    Version { key: i16, oldest: i16, newest: i16 },
    #[error("the broker refuses the request: {0}")]
    Refused(ResponseError),
    #[error(
        "the broker refuses the credentials: {0}; check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD_FILE"
    )]
    Credentials(String),
    #[error("no broker of {brokers} can be reached; last: {last}")]
    NoBroker { brokers: String, last: String },
    #[error(transparent)]
    Kafka(#[from] KafkaSettingsError),
    #[error("{setting}: {reason}")]
    Settings {
        setting: &'static str,
        reason: String,
    },
    #[error("cannot read {path} ({setting}): {reason}")]
    File {
        setting: &'static str,
        path: PathBuf,
        reason: String,
    },
}

impl BrokerError {
    /// Whether asking again may help.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Version { .. }
                | Self::Credentials(_)
                | Self::Kafka(_)
                | Self::Settings { .. }
                | Self::File { .. }
        )
    }
}
