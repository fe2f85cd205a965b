//! What librdkafka calls back: rebalances are noted and carried out by the forwarder when it is ready.

use parking_lot::Mutex;
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientContext, TopicPartitionList};
use tracing::{debug, warn};

/// A change of the partitions that this forwarder is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// Begin to read these.
    Assign(Vec<i32>),
    /// Hand these over: confirm and commit what was read of them, then let go.
    Revoke(Vec<i32>),
    /// These are another's already: nothing of them can be committed any more.
    Lost(Vec<i32>),
}

/// Notes what librdkafka reports.
#[derive(Default)]
pub(crate) struct Context {
    inner: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    rebalances: Vec<Rebalance>,
    fatal: Option<String>,
    commit_failure: Option<String>,
    closing: bool,
}

impl Context {
    /// Takes what has been noted since the last call.
    pub(crate) fn take_rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut self.inner.lock().rebalances)
    }

    /// The error after which this client can do nothing more, if there was one.
    pub(crate) fn fatal(&self) -> Option<String> {
        self.inner.lock().fatal.clone()
    }

    /// Why the last commit failed, once.
    pub(crate) fn take_commit_failure(&self) -> Option<String> {
        self.inner.lock().commit_failure.take()
    }

    /// From now on partitions are let go as soon as the group asks for them: the forwarder is stopping.
    pub(crate) fn close(&self) {
        self.inner.lock().closing = true;
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes through `error` too, and is said there in one line.
        debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::Fatal) {
            self.inner.lock().fatal = Some(reason.to_owned());
        } else {
            debug!(target: "librdkafka", %error, reason);
        }
    }
}

impl ConsumerContext for Context {
    /// Only notes the event: librdkafka waits until the forwarder has assigned or let go.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: rd_kafka_resp_err_t,
        partitions: &mut TopicPartitionList,
    ) {
        let ids: Vec<i32> = partitions
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        let assign = kind == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let mut noted = self.inner.lock();
        if noted.closing {
            // Also what is given to one who leaves has to be taken, or librdkafka waits for it.
            let done = if assign {
                consumer.incremental_assign(partitions)
            } else {
                consumer.incremental_unassign(partitions)
            };
            if let Err(error) = done {
                warn!(%error, "a change of the group could not be carried out while leaving it");
            }
            return;
        }
        noted
            .rebalances
            .push(match (assign, consumer.assignment_lost()) {
                (true, _) => Rebalance::Assign(ids),
                (false, false) => Rebalance::Revoke(ids),
                (false, true) => Rebalance::Lost(ids),
            });
    }

    /// A commit may fail as a whole, or for some partitions only.
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let each = || {
            offsets
                .elements()
                .iter()
                .try_for_each(|element| element.error())
        };
        if let Err(error) = result.and_then(|()| each()) {
            self.inner.lock().commit_failure = Some(error.to_string());
        }
    }
}
