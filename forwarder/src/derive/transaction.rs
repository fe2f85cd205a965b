//! What a failed step of a transaction means, and the commit itself by librdkafka's own call.
#![allow(
    unsafe_code,
    reason = "the safe crate's commit flushes by itself, so that records wait for their linger"
)]

use std::ffi::CStr;
use std::fmt::Display;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use thiserror::Error;

use super::writer::Context;

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
    /// Calling the step again goes on with it.
    TryAgain,
    /// The transaction has to be aborted.
    Abort,
    /// This producer can do nothing more.
    Nothing,
}

impl Remedy {
    fn of(is_fatal: bool, requires_abort: bool, is_retriable: bool) -> Self {
        match (is_fatal, requires_abort, is_retriable) {
            (true, _, _) => Self::Nothing,
            (_, true, _) => Self::Abort,
            (_, _, true) => Self::TryAgain,
            _ => Self::Nothing,
        }
    }
}

impl StepError {
    pub(crate) fn new(remedy: Remedy, reason: impl Display) -> Self {
        Self {
            remedy,
            text: reason.to_string(),
        }
    }
}

impl From<KafkaError> for StepError {
    fn from(error: KafkaError) -> Self {
        let remedy = match &error {
            KafkaError::Transaction(reason) => Remedy::of(
                reason.is_fatal(),
                reason.txn_requires_abort(),
                reason.is_retriable(),
            ),
            _ => Remedy::Nothing,
        };
        Self::new(remedy, error)
    }
}

/// Writes what is enqueued, at once and whatever its linger, and commits.
///
/// The safe crate's commit has librdkafka flush for an instant only, again and again with pauses of 100 ms: whether the thread that
/// writes notices is left to chance, and records wait for their linger. And it takes a flush that needs longer than `timeout` for a
/// failure, where this goes on when it is called again.
pub(crate) fn commit(
    producer: &ThreadedProducer<Context>,
    timeout: Duration,
) -> Result<(), StepError> {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the producer; the error is read before it is destroyed, once.
    unsafe {
        let error = rd::rd_kafka_commit_transaction(producer.client().native_ptr(), timeout_ms);
        if error.is_null() {
            return Ok(());
        }
        let remedy = Remedy::of(
            rd::rd_kafka_error_is_fatal(error) != 0,
            rd::rd_kafka_error_txn_requires_abort(error) != 0,
            rd::rd_kafka_error_is_retriable(error) != 0,
        );
        let text = CStr::from_ptr(rd::rd_kafka_error_string(error)).to_string_lossy();
        let failure = StepError::new(remedy, text);
        rd::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

/// Whether another producer under the same transactional id can go on where this one, which failed for good, cannot.
///
/// Kafka tells a producer whose transaction it has ended for taking too long what it tells one whose name another process has taken,
/// and the latter must not go on: the two would drive each other out for ever. By the time the transaction has been open they can
/// be told apart. A state that Kafka does not expect is none of another process' doing.
pub(crate) fn may_be_replaced(
    cause: Option<RDKafkaErrorCode>,
    open_for: Option<Duration>,
    transaction_timeout: Duration,
) -> bool {
    cause == Some(RDKafkaErrorCode::InvalidTransactionalState)
        || open_for.is_some_and(|open_for| open_for >= transaction_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fatal_is_so_whatever_else_it_is_called() {
        assert_eq!(Remedy::of(true, true, true), Remedy::Nothing);
        assert_eq!(Remedy::of(false, true, true), Remedy::Abort);
        assert_eq!(Remedy::of(false, false, true), Remedy::TryAgain);
        assert_eq!(Remedy::of(false, false, false), Remedy::Nothing);
    }

    #[test]
    fn a_producer_is_replaced_unless_another_may_have_its_name() {
        let timeout = Duration::from_secs(60);
        let fenced = Some(RDKafkaErrorCode::Fenced);
        let replaced = |cause, open_for: Option<u64>| {
            may_be_replaced(cause, open_for.map(Duration::from_secs), timeout)
        };
        assert!(!replaced(fenced, None));
        assert!(!replaced(fenced, Some(59)));
        assert!(replaced(fenced, Some(60)));
        assert!(replaced(
            Some(RDKafkaErrorCode::InvalidTransactionalState),
            None
        ));
        assert!(!replaced(None, Some(59)));
    }
}
