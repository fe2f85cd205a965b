//! Writes derived records and the source's offsets in one transaction.

use std::sync::Arc;
use std::time::Duration;

use ofa_crds::kafka::KafkaSettings;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message as _};
use thiserror::Error;
use tracing::{debug, warn};

use super::transaction::{self, Remedy, StepError};
use crate::consume::SourceError;
use crate::health::Health;

/// How long one attempt of a step may take before it is seen whether to go on.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A member that vanishes in the middle of a transaction holds readers back for this long at most; one that
/// comes back under its name ends it at once. Longer than a broker needs to be replaced by another, and than a
/// busy one needs to mark the end of a transaction in thousands of partitions.
const TRANSACTION_TIMEOUT_MS: &str = "30000";

/// Records and kilobytes written ahead of the broker.
const QUEUED_MESSAGES: &str = "300000";
const QUEUED_KILOBYTES: &str = "131072";

/// As long as transactions usually are: each partition gets its records in one batch, when the commit sends what is there
/// or a batch is full, since with hundreds of groups the cost is that of the number of batches.
const LINGER_MS: &str = "2000";

/// Why a transaction came to nothing.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// It has to be aborted; what was read since the last one is to be read again.
    #[error("the transaction failed: {0}")]
    Abort(StepError),
    /// This client can do nothing more.
    #[error("{0}")]
    Fatal(StepError),
}

/// The producer of this member.
pub(crate) struct Writer {
    producer: Arc<ThreadedProducer<Context>>,
    health: Arc<Health>,
    open: bool,
}

/// Only failures are reported, and each of them also fails the transaction.
pub(crate) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", %error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            debug!(topic = record.topic(), %error, "a derived record was not written");
        }
    }
}

impl Writer {
    /// Makes the producer and ends what an earlier process under the same id left open.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        transactional_id: &str,
        health: Arc<Health>,
    ) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Client {
            what: "write derived topics",
            source,
        };
        let mut config = kafka.client_config()?;
        config
            .set("client.id", transactional_id)
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("delivery.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("delivery.report.only.error", "true")
            .set("queue.buffering.max.messages", QUEUED_MESSAGES)
            .set("queue.buffering.max.kbytes", QUEUED_KILOBYTES)
            .set("linger.ms", LINGER_MS);
        let producer: ThreadedProducer<Context> =
            config.create_with_context(Context).map_err(failed)?;
        Ok(Self {
            producer: Arc::new(producer),
            health,
            open: false,
        })
    }

    pub(crate) fn producer(&self) -> &Arc<ThreadedProducer<Context>> {
        &self.producer
    }

    /// Ends what an earlier process under the same id left open, and keeps it from writing on.
    pub(crate) fn take_over(&self) -> Result<(), WriteError> {
        self.attempt("take over", || {
            Ok(self.producer.init_transactions(ATTEMPT)?)
        })
    }

    /// Whether something was written since the last commit.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Opens a transaction unless one is open.
    pub(crate) fn begin(&mut self) -> Result<(), WriteError> {
        if !self.is_open() {
            self.attempt("begin", || Ok(self.producer.begin_transaction()?))?;
            self.open = true;
        }
        Ok(())
    }

    /// Commits what was written together with the source's offsets; fails when the group has given the
    /// source's partitions to another member.
    pub(crate) fn commit(
        &mut self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), WriteError> {
        self.begin()?;
        self.attempt("add the source's offsets", || {
            Ok(self
                .producer
                .send_offsets_to_transaction(offsets, group, ATTEMPT)?)
        })?;
        self.attempt("commit", || transaction::commit(&self.producer, ATTEMPT))?;
        self.open = false;
        Ok(())
    }

    /// Gives up what was written since the last commit.
    pub(crate) fn abort(&mut self) -> Result<(), WriteError> {
        if self.is_open() {
            self.attempt("abort", || Ok(self.producer.abort_transaction(ATTEMPT)?))?;
            self.open = false;
        }
        Ok(())
    }

    /// Repeats a step for as long as Kafka's client says that this helps.
    fn attempt(
        &self,
        what: &'static str,
        step: impl Fn() -> Result<(), StepError>,
    ) -> Result<(), WriteError> {
        loop {
            self.health.beat();
            let Err(error) = step() else {
                self.health.settled("transactions");
                return Ok(());
            };
            match error.remedy {
                Remedy::TryAgain => {
                    warn!(what, %error, "a step of the transaction is tried again");
                    self.health
                        .pending("transactions", format!("cannot {what}: {error}"));
                }
                Remedy::Abort => return Err(WriteError::Abort(error)),
                Remedy::Nothing => return Err(WriteError::Fatal(error)),
            }
        }
    }

    /// What an error of a single record means for its transaction; `None` when it is only to be tried again.
    pub(crate) fn judge(&self, code: RDKafkaErrorCode) -> Option<WriteError> {
        if code == RDKafkaErrorCode::QueueFull {
            return None;
        }
        let error = KafkaError::MessageProduction(code);
        let fatal = self.producer.client().fatal_error();
        Some(match fatal {
            Some(_) => WriteError::Fatal(error.into()),
            None => WriteError::Abort(StepError::new(Remedy::Abort, error)),
        })
    }
}
