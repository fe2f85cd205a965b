//! What a failed step of a transaction means.

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
    /// The request may be sent again.
    TryAgain,
    /// The same, to the coordinator that there is now.
    FindCoordinator,
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

    /// What an answer of a coordinator means. All its requests may be repeated.
    pub(super) fn of_coordinator(error: ResponseError) -> Self {
        use ResponseError as E;
        let remedy = match error {
            E::ConcurrentTransactions | E::CoordinatorLoadInProgress | E::RequestTimedOut => {
                Remedy::TryAgain
            }
            E::CoordinatorNotAvailable | E::NotCoordinator | E::NetworkException => {
                Remedy::FindCoordinator
            }
            E::ProducerFenced | E::InvalidProducerEpoch => Remedy::Fenced,
            E::InvalidTxnState | E::InvalidProducerIdMapping => Remedy::Replace,
            E::TransactionalIdAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::InvalidTransactionTimeout
            | E::UnsupportedVersion => Remedy::Nothing,
            _ => Remedy::Abort,
        };
        Self::new(remedy, error)
    }

    /// What it means that a coordinator cannot be asked, or cannot be understood.
    pub(super) fn of_connection(error: BrokerError) -> Self {
        let remedy = if error.may_pass() {
            Remedy::FindCoordinator
        } else {
            Remedy::Nothing
        };
        Self::new(remedy, error)
    }

    /// Whatever went wrong with a partition's records, it may have them or not.
    pub(super) fn of_partition(topic: &str, partition: i32, reason: impl Display) -> Self {
        Self::new(
            Remedy::Abort,
            format!("{topic}, partition {partition}: {reason}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_a_coordinator_has_its_remedy() {
        use ResponseError as E;
        for (error, remedy) in [
            (E::ConcurrentTransactions, Remedy::TryAgain),
            (E::NotCoordinator, Remedy::FindCoordinator),
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
            assert_eq!(StepError::of_coordinator(error).remedy, remedy, "{error}");
        }
    }

    #[test]
    fn a_coordinator_that_is_away_is_looked_for_again() {
        assert_eq!(
            StepError::of_connection(BrokerError::Timeout).remedy,
            Remedy::FindCoordinator
        );
        let refused = BrokerError::Credentials("no".to_owned());
        assert_eq!(StepError::of_connection(refused).remedy, Remedy::Nothing);
    }
}
