//! What it means that a coordinator refuses, or that a step of a transaction fails.

use std::fmt::Display;

use kafka_protocol::error::ResponseError;
use thiserror::Error;

use crate::kafka::BrokerError;

/// Why a step of a transaction failed.
#[derive(Debug, Error)]
#[error("{text}")]
pub(crate) struct StepError {
    pub(crate) remedy: Remedy,
    text: String,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The transaction has to be aborted.
    Abort,
    /// Another has taken this producer's name, or Kafka has ended a transaction that took too long.
    Fenced,
    /// Kafka knows nothing of this producer's transaction; a new one under the same name can go on.
    Replace,
    /// Only people can do something.
    Nothing,
}

impl StepError {
    pub(crate) fn new(remedy: Remedy, reason: impl Display) -> Self {
        Self {
            remedy,
            text: reason.to_string(),
        }
    }

    /// Whatever went wrong with a partition's records, it may have them or not.
    pub(super) fn of_partition(topic: &str, partition: i32, reason: impl Display) -> Self {
        Self::new(
            Remedy::Abort,
            format!("{topic}, partition {partition}: {reason}"),
        )
    }
}

/// Why a coordinator has not done what it was asked. All requests to coordinators may be repeated.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// It will do so in a moment.
    #[error("{0}")]
    Later(ResponseError),
    /// Another broker is the coordinator now, or this one cannot be reached.
    #[error("{0}")]
    Elsewhere(String),
    /// Asking again does not help.
    #[error("{0}")]
    Final(StepError),
}

impl Refusal {
    /// What an answer of a coordinator means.
    pub(super) fn of(error: ResponseError) -> Self {
        use ResponseError as E;
        let remedy = match error {
            E::ConcurrentTransactions | E::CoordinatorLoadInProgress | E::RequestTimedOut => {
                return Self::Later(error);
            }
            E::CoordinatorNotAvailable | E::NotCoordinator | E::NetworkException => {
                return Self::Elsewhere(error.to_string());
            }
            E::ProducerFenced | E::InvalidProducerEpoch => Remedy::Fenced,
            E::InvalidTxnState | E::InvalidProducerIdMapping => Remedy::Replace,
            E::TransactionalIdAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::InvalidTransactionTimeout
            | E::UnsupportedVersion => Remedy::Nothing,
            _ => Remedy::Abort,
        };
        Self::Final(StepError::new(remedy, error))
    }

    /// What it means that a coordinator cannot be asked, or cannot be understood.
    pub(super) fn of_connection(error: &BrokerError) -> Self {
        if error.may_pass() {
            Self::Elsewhere(error.to_string())
        } else {
            Self::Final(StepError::new(Remedy::Nothing, error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pass_by_itself_has_its_remedy() {
        use ResponseError as E;
        for (error, remedy) in [
            (E::ProducerFenced, Remedy::Fenced),
            (E::InvalidProducerEpoch, Remedy::Fenced),
            (E::InvalidTxnState, Remedy::Replace),
            (E::InvalidTransactionTimeout, Remedy::Nothing),
            // The partitions are another member's now, or a topic is gone.
            (E::IllegalGeneration, Remedy::Abort),
            (E::UnknownMemberId, Remedy::Abort),
            (E::UnknownTopicOrPartition, Remedy::Abort),
            (E::TopicAuthorizationFailed, Remedy::Abort),
        ] {
            let refusal = Refusal::of(error);
            let found = matches!(&refusal, Refusal::Final(step) if step.remedy == remedy);
            assert!(found, "{error}: {refusal:?}");
        }
    }

    #[test]
    fn a_coordinator_that_is_busy_or_away_is_asked_again() {
        let busy = Refusal::of(ResponseError::ConcurrentTransactions);
        assert!(matches!(busy, Refusal::Later(_)), "{busy:?}");
        for away in [
            Refusal::of(ResponseError::NotCoordinator),
            Refusal::of_connection(&BrokerError::Timeout),
        ] {
            assert!(matches!(away, Refusal::Elsewhere(_)), "{away:?}");
        }
        let refused = Refusal::of_connection(&BrokerError::Credentials("no".to_owned()));
        assert!(matches!(refused, Refusal::Final(_)), "{refused:?}");
    }
}
