//! Writes derived records and the source's offsets in one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::health::Health;
use crate::kafka::BrokerError;
use crate::produce::{
    Accumulator, ConsumedOffsets, NewRecord, Problem, ProducerSettings, Remedy, Session, Step,
    StepError, TopicId,
};

/// How long a step may take before it is said why it does.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// A derived topic, ready to be written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DerivedTopic {
    id: TopicId,
    /// At least one.
    partitions: usize,
}

impl DerivedTopic {
    /// The partition that records of a partition of the source go to: with as many partitions, the one of the same number.
    pub(crate) fn partition_of(self, source: i32) -> usize {
        usize::try_from(source).unwrap_or_default() % self.partitions
    }
}

/// A step that is being done. Dropped, it is broken off.
struct Running {
    what: &'static str,
    task: AbortOnDropHandle<Result<(), StepError>>,
}

/// The producer of this member.
pub(crate) struct Writer {
    settings: ProducerSettings,
    runtime: Handle,
    session: Arc<Mutex<Session>>,
    problem: Problem,
    accumulator: Accumulator,
    /// Records under way, while the next ones are taken in.
    writing: Option<Running>,
    health: Arc<Health>,
    stop: CancellationToken,
    /// Since when a transaction is open, if one is.
    open_since: Option<Instant>,
}

impl Writer {
    /// Makes the producer; Kafka is not asked anything yet.
    pub(crate) fn new(
        settings: ProducerSettings,
        health: Arc<Health>,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let session = Session::new(settings.clone())?;
        Ok(Self {
            problem: session.problem(),
            session: Arc::new(Mutex::new(session)),
            settings,
            runtime,
            accumulator: Accumulator::default(),
            writing: None,
            health,
            stop,
            open_since: None,
        })
    }

    /// A topic that is there is going to be written to.
    pub(crate) fn open(&mut self, name: &str, partitions: i32) -> DerivedTopic {
        let partitions = usize::try_from(partitions).unwrap_or_default().max(1);
        DerivedTopic {
            id: self.accumulator.open(name, partitions),
            partitions,
        }
    }

    /// Ends what an earlier process under the same id left open, and keeps it from writing on.
    pub(crate) fn take_over(&mut self) -> Result<(), WriteError> {
        self.finish(self.start(Step::BeginEpoch))
    }

    /// Goes on with a new producer under the same name, once this one can do nothing more. What it has left open is aborted.
    pub(crate) fn replace(&mut self) -> Result<(), WriteError> {
        let failed = |error| WriteError::Fatal(StepError::new(Remedy::Nothing, error));
        let session = Session::new(self.settings.clone()).map_err(failed)?;
        self.forget();
        self.problem = session.problem();
        self.session = Arc::new(Mutex::new(session));
        self.take_over()
    }

    /// Whether something was written since the last commit.
    pub(crate) fn is_open(&self) -> bool {
        self.open_since.is_some()
    }

    /// Opens a transaction unless one is open.
    pub(crate) fn begin(&mut self) {
        self.open_since.get_or_insert_with(Instant::now);
    }

    /// Adds a record to the open transaction.
    pub(crate) fn append(
        &mut self,
        (topic, partition): (DerivedTopic, usize),
        record: &NewRecord<'_>,
    ) -> Result<(), WriteError> {
        let to = (topic.id, partition);
        if !self.accumulator.has_room(to, record) {
            self.send()?;
        }
        self.accumulator.push(to, record);
        if self.accumulator.is_full() {
            self.send()?;
        }
        Ok(())
    }

    /// Commits what was written together with the source's offsets; fails when the group has given the
    /// source's partitions to another member.
    pub(crate) fn commit(&mut self, consumed: ConsumedOffsets) -> Result<(), WriteError> {
        self.begin();
        self.send()?;
        self.await_written()?;
        self.finish(self.start(Step::Commit(consumed)))?;
        self.open_since = None;
        Ok(())
    }

    /// Gives up what was written since the last commit.
    pub(crate) fn abort(&mut self) -> Result<(), WriteError> {
        if self.is_open() {
            // Whether it gets there or not, the new epoch makes it void.
            self.writing = None;
            self.finish(self.start(Step::BeginEpoch))?;
            self.forget();
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.writing = None;
        self.accumulator.take();
        self.open_since = None;
    }

    /// Sends what is there, once what was sent before is written.
    fn send(&mut self) -> Result<(), WriteError> {
        self.await_written()?;
        if !self.accumulator.is_empty() {
            let batches = self.accumulator.take();
            self.writing = Some(self.start(Step::Write(batches)));
        }
        Ok(())
    }

    fn await_written(&mut self) -> Result<(), WriteError> {
        match self.writing.take() {
            Some(writing) => self.finish(writing),
            None => Ok(()),
        }
    }

    fn start(&self, step: Step) -> Running {
        let (what, session) = (step.name(), Arc::clone(&self.session));
        let task = async move { session.lock().await.carry_out(step).await };
        Running {
            what,
            task: AbortOnDropHandle::new(self.runtime.spawn(task)),
        }
    }

    /// Waits for a step; says from time to time why it takes long.
    fn finish(&self, mut step: Running) -> Result<(), WriteError> {
        let what = step.what;
        loop {
            self.health.beat();
            let waited = async { timeout(PATIENCE, &mut step.task).await };
            match self.runtime.block_on(waited) {
                Ok(Ok(Ok(()))) => {
                    self.health.settled("transactions");
                    return Ok(());
                }
                Ok(Ok(Err(error))) => {
                    let why = format!("cannot {what}: {error}");
                    self.health.pending("transactions", why);
                    return Err(self.judge(error));
                }
                Ok(Err(broken)) => {
                    let error = StepError::new(Remedy::Nothing, broken);
                    return Err(WriteError::Fatal(error));
                }
                Err(_) => {
                    let problem = self.problem.lock().clone();
                    let problem = problem.unwrap_or_else(|| "brokers take long".to_owned());
                    warn!(
                        what,
                        problem, "a step of the transaction takes long; trying on"
                    );
                    let why = format!("cannot {what}: {problem}");
                    // The next one to have this name aborts what is left open.
                    if self.stop.is_cancelled() {
                        return Err(WriteError::Fatal(StepError::new(Remedy::Nothing, why)));
                    }
                    self.health.pending("transactions", why);
                }
            }
        }
    }

    /// What it means for the transaction that one of its steps failed.
    fn judge(&self, error: StepError) -> WriteError {
        let open_for = self.open_since.map(|since| since.elapsed());
        let took_too_long = open_for.is_some_and(|it| it >= self.settings.transaction_timeout);
        judge(error, took_too_long)
    }
}

/// Kafka tells a producer whose transaction it has ended for taking too long what it tells one whose name another process has taken,
/// and the latter must not go on: the two would drive each other out for ever. By the time the transaction has been open they can
/// be told apart.
fn judge(error: StepError, took_too_long: bool) -> WriteError {
    match error.remedy {
        Remedy::Abort => WriteError::Abort(error),
        Remedy::Replace => WriteError::Replace(error),
        Remedy::Fenced if took_too_long => WriteError::Replace(error),
        Remedy::Fenced | Remedy::Nothing => WriteError::Fatal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_replaced_unless_another_may_have_its_name() {
        let judged = |remedy, took_too_long| judge(StepError::new(remedy, "no"), took_too_long);
        let fenced = judged(Remedy::Fenced, false);
        assert!(matches!(fenced, WriteError::Fatal(_)), "{fenced}");
        for (remedy, took_too_long) in [(Remedy::Fenced, true), (Remedy::Replace, false)] {
            let judged = judged(remedy, took_too_long);
            assert!(matches!(judged, WriteError::Replace(_)), "{judged}");
        }
        let lost = judged(Remedy::Abort, true);
        assert!(matches!(lost, WriteError::Abort(_)), "{lost}");
    }
}
