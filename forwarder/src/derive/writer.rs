//! Writes derived records and the source's offsets in one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::kafka::KafkaSettings;
use rdkafka::TopicPartitionList;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message as _};
use thiserror::Error;
use tracing::{debug, warn};

use super::transaction::{self, Remedy, StepError, may_be_replaced};
use crate::consume::SourceError;
use crate::health::Health;

/// How long one attempt of a step may take before it is seen whether to go on.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long a broker may take for one answer before it is asked anew. librdkafka would wait as long as a transaction may take, and
/// takes no more than that.
const ANSWER: Duration = Duration::from_secs(30);

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
    /// The same, and only another producer can go on, under the same name: [`Writer::replace`].
    #[error("the transaction was ended by Kafka: {0}")]
    Replace(StepError),
    /// This member can do nothing more.
    #[error("{0}")]
    Fatal(StepError),
}

/// The producer of this member.
pub(crate) struct Writer {
    config: ClientConfig,
    producer: Arc<ThreadedProducer<Context>>,
    health: Arc<Health>,
    transaction_timeout: Duration,
    /// Since when a transaction is open, if one is.
    open_since: Option<Instant>,
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
    /// Makes the producer.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        transactional_id: &str,
        transaction_timeout: Duration,
        health: Arc<Health>,
    ) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Client {
            what: "write derived topics",
            source,
        };
        let timeout_ms = transaction_timeout.as_millis().to_string();
        let answer_ms = transaction_timeout.min(ANSWER).as_millis().to_string();
        let mut config = kafka.client_config()?;
        config
            .set("client.id", transactional_id)
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", &timeout_ms)
            .set("delivery.timeout.ms", &timeout_ms)
            .set("socket.timeout.ms", &answer_ms)
            .set("delivery.report.only.error", "true")
            .set("queue.buffering.max.messages", QUEUED_MESSAGES)
            .set("queue.buffering.max.kbytes", QUEUED_KILOBYTES)
            .set("linger.ms", LINGER_MS);
        Ok(Self {
            producer: start(&config).map_err(failed)?,
            config,
            health,
            transaction_timeout,
            open_since: None,
        })
    }

    /// Goes on with a new producer under the same name, once this one can do nothing more. What it has left open is aborted. Whoever
    /// holds on to the old producer has to let go of it before.
    pub(crate) fn replace(&mut self) -> Result<(), WriteError> {
        let failed = |error| WriteError::Fatal(StepError::from(error));
        self.producer = start(&self.config).map_err(failed)?;
        self.open_since = None;
        self.take_over()
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
        self.open_since.is_some()
    }

    /// Opens a transaction unless one is open.
    pub(crate) fn begin(&mut self) -> Result<(), WriteError> {
        if !self.is_open() {
            self.attempt("begin", || Ok(self.producer.begin_transaction()?))?;
            self.open_since = Some(Instant::now());
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
        self.open_since = None;
        Ok(())
    }

    /// Gives up what was written since the last commit.
    pub(crate) fn abort(&mut self) -> Result<(), WriteError> {
        if self.is_open() {
            self.attempt("abort", || Ok(self.producer.abort_transaction(ATTEMPT)?))?;
            self.open_since = None;
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
                Remedy::Nothing => return Err(self.beyond_help(error)),
            }
        }
    }

    /// What it means that this producer can do nothing more.
    fn beyond_help(&self, error: StepError) -> WriteError {
        let cause = self.producer.client().fatal_error().map(|(code, _)| code);
        let open_for = self.open_since.map(|since| since.elapsed());
        if may_be_replaced(cause, open_for, self.transaction_timeout) {
            WriteError::Replace(error)
        } else {
            WriteError::Fatal(error)
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
            Some(_) => self.beyond_help(error.into()),
            None => WriteError::Abort(StepError::new(Remedy::Abort, error)),
        })
    }
}

fn start(config: &ClientConfig) -> Result<Arc<ThreadedProducer<Context>>, KafkaError> {
    Ok(Arc::new(config.create_with_context(Context)?))
}
