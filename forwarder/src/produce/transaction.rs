//! The steps of a transaction, each a request or two.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, GroupId,
    InitProducerIdRequest, ProducerId, TopicName, TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::accumulator::Outgoing;
use super::batch::ProducerIdentity;
use super::error::{Refusal, StepError};
use super::partitions::index_of;
use super::session::{Coordinator, Session};
use super::topic_name;

/// Versions that are spoken. With those behind them brokers change the epoch with each transaction (KIP-890); before version 3 of
/// `TxnOffsetCommit` a group could not refuse a member that has lost its partitions (KIP-447).
const INIT_PRODUCER_ID_VERSIONS: RangeInclusive<i16> = 0..=4;
const ADD_PARTITIONS_VERSIONS: RangeInclusive<i16> = 0..=3;
const ADD_OFFSETS_VERSIONS: RangeInclusive<i16> = 0..=3;
const TXN_OFFSET_COMMIT_VERSIONS: RangeInclusive<i16> = 3..=3;
const END_TXN_VERSIONS: RangeInclusive<i16> = 0..=3;

/// How long a topic just created may be unknown to a broker, or without leader.
pub(super) const PROPAGATION: Duration = Duration::from_secs(30);

/// What stands for a producer that Kafka is to give an identity.
const NOBODY: ProducerIdentity = ProducerIdentity { id: -1, epoch: -1 };

/// A consumer's place in its group (KIP-447): by it the coordinator knows whether its partitions are still its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) generation: i32,
    pub(crate) member: String,
}

/// How far a consumer has come in a topic.
#[derive(Debug, Clone)]
pub(crate) struct ConsumedOffsets {
    pub(crate) topic: String,
    /// For each partition the offset of the next record.
    pub(crate) offsets: Vec<(i32, i64)>,
    pub(crate) membership: Membership,
}

/// A step of a transaction.
#[derive(Debug)]
pub(crate) enum Step {
    /// Aborts what is open under this producer's name, and begins a new epoch of it: what has an older one is not written any more.
    /// Fails where another process has taken the name since this one had its last epoch.
    BeginEpoch,
    /// Writes records as part of the transaction.
    Write(Vec<Outgoing>),
    /// Commits what was written together with how far the source was read.
    Commit(ConsumedOffsets),
}

impl Step {
    /// What is done, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BeginEpoch => "begin an epoch of the producer",
            Self::Write(_) => "write records",
            Self::Commit(_) => "commit",
        }
    }
}

impl Session {
    /// Does a step, however long coordinators take to answer: [`Session::problem`] tells why it takes long.
    pub(crate) async fn carry_out(&mut self, step: Step) -> Result<(), StepError> {
        *self.problem.lock() = None;
        match step {
            Step::BeginEpoch => self.begin_epoch().await,
            Step::Write(batches) => self.write(batches).await,
            Step::Commit(consumed) => self.commit(&consumed).await,
        }
    }

    pub(super) fn id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(
            self.settings.transactional_id.clone(),
        ))
    }

    fn group(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.settings.consumer_group.clone()))
    }

    pub(super) fn identity(&self) -> ProducerIdentity {
        self.identity.unwrap_or(NOBODY)
    }

    /// A new epoch is asked for as by a new process: that has the markers of what is aborted carry an epoch of their own, so that
    /// requests still under way are void from then on, with any broker. With the identity that one has (KIP-360) brokers take the
    /// epoch of these markers for another process' unless they do KIP-890. But such a request drives anybody out who has the name
    /// now, so that it is asked before whether this is still the one.
    async fn begin_epoch(&mut self) -> Result<(), StepError> {
        if self.identity.is_some() {
            self.add_offsets().await?;
        }
        let timeout = self.settings.transaction_timeout.as_millis();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.id()))
            .with_transaction_timeout_ms(i32::try_from(timeout).unwrap_or(i32::MAX))
            .with_producer_id(ProducerId(NOBODY.id))
            .with_producer_epoch(NOBODY.epoch);
        let answer = self
            .ask_transaction(&request, INIT_PRODUCER_ID_VERSIONS, |answer| {
                judge(answer.error_code)
            })
            .await?;
        self.identity = Some(ProducerIdentity {
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        });
        self.partitions.epoch_begun();
        self.is_doubtful = false;
        Ok(())
    }

    pub(super) async fn add_partitions(&mut self, batches: &[Outgoing]) -> Result<(), StepError> {
        let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
        for batch in batches {
            if self.partitions.of(batch.topic, batch.partition).add() {
                let partitions = topics.entry(&batch.name).or_default();
                partitions.push(index_of(batch.partition));
            }
        }
        if topics.is_empty() {
            return Ok(());
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            AddPartitionsToTxnTopic::default()
                .with_name(name.clone())
                .with_partitions(partitions)
        });
        let identity = self.identity();
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id())
            .with_v3_and_below_producer_id(ProducerId(identity.id))
            .with_v3_and_below_producer_epoch(identity.epoch)
            .with_v3_and_below_topics(topics.collect());
        let deadline = Instant::now() + PROPAGATION;
        self.ask_transaction(&request, ADD_PARTITIONS_VERSIONS, |answer| {
            let topics = answer.results_by_topic_v3_and_below.iter();
            let partitions = topics.flat_map(|it| &it.results_by_partition);
            let mut codes = partitions.map(|it| it.partition_error_code);
            codes.try_for_each(|code| judge_partition(code, Instant::now() < deadline))
        })
        .await?;
        Ok(())
    }

    async fn commit(&mut self, consumed: &ConsumedOffsets) -> Result<(), StepError> {
        self.add_offsets().await?;
        self.commit_offsets(consumed).await?;
        let identity = self.identity();
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id())
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch)
            .with_committed(true);
        self.ask_transaction(&request, END_TXN_VERSIONS, |answer| {
            judge(answer.error_code)
        })
        .await?;
        self.partitions.transaction_ended();
        if self.is_doubtful {
            self.begin_epoch().await?;
        }
        Ok(())
    }

    /// The transaction is to have offsets too. Fails where another process has this producer's name.
    async fn add_offsets(&mut self) -> Result<(), StepError> {
        let identity = self.identity();
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(self.id())
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch)
            .with_group_id(self.group());
        self.ask_transaction(&request, ADD_OFFSETS_VERSIONS, |answer| {
            judge(answer.error_code)
        })
        .await?;
        Ok(())
    }

    async fn commit_offsets(&mut self, consumed: &ConsumedOffsets) -> Result<(), StepError> {
        let partition = |&(partition, offset): &(i32, i64)| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(offset)
        };
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(&consumed.topic))
            .with_partitions(consumed.offsets.iter().map(partition).collect());
        let (identity, membership) = (self.identity(), &consumed.membership);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.id())
            .with_group_id(self.group())
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch)
            .with_generation_id(membership.generation)
            .with_member_id(StrBytes::from_string(membership.member.clone()))
            .with_topics(vec![topic]);
        let versions = TXN_OFFSET_COMMIT_VERSIONS;
        self.ask_coordinator(Coordinator::Group, &request, versions, |answer| {
            let partitions = answer.topics.iter().flat_map(|it| &it.partitions);
            partitions.map(|it| it.error_code).try_for_each(judge)
        })
        .await?;
        Ok(())
    }

    async fn ask_transaction<R: kafka_protocol::protocol::Request>(
        &mut self,
        request: &R,
        versions: RangeInclusive<i16>,
        judge: impl Fn(&R::Response) -> Result<(), Refusal>,
    ) -> Result<R::Response, StepError> {
        self.ask_coordinator(Coordinator::Transaction, request, versions, judge)
            .await
    }
}

fn judge(code: i16) -> Result<(), Refusal> {
    code.err().map_or(Ok(()), |error| Err(Refusal::of(error)))
}

/// What it means for a transaction that one of its partitions has this answer.
fn judge_partition(code: i16, may_be_new: bool) -> Result<(), Refusal> {
    match code.err() {
        // Another partition is why.
        Some(ResponseError::OperationNotAttempted) => Ok(()),
        Some(error @ ResponseError::UnknownTopicOrPartition) if may_be_new => {
            Err(Refusal::Later(error))
        }
        _ => judge(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_nobody_knows_may_be_new_and_is_gone_after_a_while() {
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        let new = judge_partition(unknown, true);
        assert!(matches!(new, Err(Refusal::Later(_))), "{new:?}");
        let gone = judge_partition(unknown, false);
        assert!(matches!(gone, Err(Refusal::Final(_))), "{gone:?}");
        let not_attempted = ResponseError::OperationNotAttempted.code();
        assert!(judge_partition(not_attempted, false).is_ok());
        assert!(judge_partition(0, false).is_ok());
    }
}
