//! The steps of a transaction, each a request or two.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, GroupId,
    InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName, TransactionalId,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::sleep;

use super::accumulator::Outgoing;
use super::batch::ProducerIdentity;
use super::error::{Remedy, StepError};
use super::session::{Coordinator, Session};
use super::topic_name;

/// Versions that are spoken. With those behind them brokers change the epoch with each transaction (KIP-890); before version 3 of
/// `TxnOffsetCommit` a group could not refuse a member that has lost its partitions (KIP-447).
const INIT_PRODUCER_ID_VERSIONS: RangeInclusive<i16> = 0..=4;
const ADD_PARTITIONS_VERSIONS: RangeInclusive<i16> = 0..=3;
const ADD_OFFSETS_VERSIONS: RangeInclusive<i16> = 0..=3;
const TXN_OFFSET_COMMIT_VERSIONS: RangeInclusive<i16> = 3..=3;
const END_TXN_VERSIONS: RangeInclusive<i16> = 0..=3;
const PRODUCE_VERSIONS: RangeInclusive<i16> = 3..=9;

/// All replicas in sync have a record before it counts.
const ACKS_ALL: i16 = -1;

/// How long a broker waits for those replicas.
const REPLICATION: Duration = Duration::from_secs(30);

/// How long a topic just created may be unknown to a broker, or without leader.
const PROPAGATION: Duration = Duration::from_secs(30);

/// Rest before it is asked again who leads a partition.
const LEADER_REST: Duration = Duration::from_millis(50);

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

    fn id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(
            self.settings.transactional_id.clone(),
        ))
    }

    fn group(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.settings.consumer_group.clone()))
    }

    fn identity(&self) -> ProducerIdentity {
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
        self.forget_leaders();
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

    /// Whatever fails once the first records are sent, the transaction has to be aborted.
    async fn write(&mut self, batches: Vec<Outgoing>) -> Result<(), StepError> {
        self.add_partitions(&batches).await?;
        self.know_leaders(&batches).await?;
        let sent = batches.len();
        let requests = self.produce_requests(batches)?;
        let answers = self
            .ask_brokers(requests, PRODUCE_VERSIONS, REPLICATION)
            .await;
        let mut written = 0;
        for (broker, answer) in answers {
            let unknown =
                |error| StepError::new(Remedy::Abort, format!("broker {broker}: {error}"));
            written += count_written(&answer.map_err(unknown)?)?;
        }
        if written == sent {
            return Ok(());
        }
        let reason = format!("brokers tell of {written} partitions, and {sent} were written to");
        Err(StepError::new(Remedy::Abort, reason))
    }

    async fn add_partitions(&mut self, batches: &[Outgoing]) -> Result<(), StepError> {
        let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
        for batch in batches {
            if self.partitions.add(&batch.topic, batch.partition) {
                let partitions = topics.entry(&batch.topic).or_default();
                partitions.push(batch.partition);
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

    async fn know_leaders(&mut self, batches: &[Outgoing]) -> Result<(), StepError> {
        let (deadline, mut asked) = (Instant::now() + PROPAGATION, false);
        loop {
            let unknown = batches
                .iter()
                .filter(|batch| self.leader(&batch.topic, batch.partition).is_none());
            let topics: BTreeSet<TopicName> = unknown.map(|batch| batch.topic.clone()).collect();
            if topics.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            if asked {
                sleep(LEADER_REST).await;
            }
            asked = true;
            let found = self.find_leaders(topics).await;
            found.map_err(|error| StepError::new(Remedy::Abort, error))?;
        }
    }

    fn produce_requests(
        &mut self,
        batches: Vec<Outgoing>,
    ) -> Result<BTreeMap<i32, ProduceRequest>, StepError> {
        let mut by_leader: BTreeMap<i32, BTreeMap<TopicName, Vec<PartitionProduceData>>> =
            BTreeMap::new();
        for batch in batches {
            let (topic, partition) = (batch.topic.clone(), batch.partition);
            let leader = self.leader(&topic, partition).ok_or_else(|| {
                StepError::of_partition(&topic.0, partition, "no broker leads it now")
            })?;
            let records = batch.batch;
            let sequence = self.partitions.number(&topic, partition, records.count());
            let data = PartitionProduceData::default()
                .with_index(partition)
                .with_records(Some(records.finish(self.identity(), sequence)));
            let topics = by_leader.entry(leader).or_default();
            topics.entry(topic).or_default().push(data);
        }
        let timeout = i32::try_from(REPLICATION.as_millis()).unwrap_or(i32::MAX);
        let request = |topics: BTreeMap<TopicName, Vec<PartitionProduceData>>| {
            let topics = topics.into_iter().map(|(name, partitions)| {
                TopicProduceData::default()
                    .with_name(name)
                    .with_partition_data(partitions)
            });
            ProduceRequest::default()
                .with_transactional_id(Some(self.id()))
                .with_acks(ACKS_ALL)
                .with_timeout_ms(timeout)
                .with_topic_data(topics.collect())
        };
        let requests = by_leader.into_iter();
        Ok(requests
            .map(|(leader, topics)| (leader, request(topics)))
            .collect())
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
        judge: impl Fn(&R::Response) -> Result<(), StepError>,
    ) -> Result<R::Response, StepError> {
        self.ask_coordinator(Coordinator::Transaction, request, versions, judge)
            .await
    }
}

fn judge(code: i16) -> Result<(), StepError> {
    match code.err() {
        None => Ok(()),
        Some(error) => Err(StepError::of_coordinator(error)),
    }
}

/// What it means for a transaction that one of its partitions has this answer.
fn judge_partition(code: i16, may_be_new: bool) -> Result<(), StepError> {
    match code.err() {
        // Another partition is why.
        Some(ResponseError::OperationNotAttempted) => Ok(()),
        Some(error @ ResponseError::UnknownTopicOrPartition) if may_be_new => {
            Err(StepError::new(Remedy::TryAgain, error))
        }
        _ => judge(code),
    }
}

/// How many partitions have taken their records; fails with the first that has not.
fn count_written(answer: &ProduceResponse) -> Result<usize, StepError> {
    let mut written = 0;
    for topic in &answer.responses {
        for partition in &topic.partition_responses {
            if let Some(error) = partition.error_code.err() {
                let (name, index) = (&topic.name.0, partition.index);
                return Err(StepError::of_partition(name, index, error));
            }
            written += 1;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_nobody_knows_may_be_new_and_is_gone_after_a_while() {
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        let remedy = |code, may_be_new| judge_partition(code, may_be_new).map_err(|it| it.remedy);
        assert_eq!(remedy(unknown, true), Err(Remedy::TryAgain));
        assert_eq!(remedy(unknown, false), Err(Remedy::Abort));
        let not_attempted = ResponseError::OperationNotAttempted.code();
        assert_eq!(remedy(not_attempted, false), Ok(()));
        assert_eq!(remedy(0, false), Ok(()));
    }
}
