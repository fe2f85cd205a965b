//! Writing a transaction's records: to the brokers that lead their partitions, and again where one is not ready to take them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use tokio::time::sleep;

use super::accumulator::{Outgoing, TopicId};
use super::error::{Remedy, StepError};
use super::partitions::index_of;
use super::session::Session;
use super::transaction::PROPAGATION;
use crate::kafka::BrokerError;

/// With those behind them brokers change the epoch with each transaction (KIP-890); before them there were no transactions.
const PRODUCE_VERSIONS: RangeInclusive<i16> = 3..=9;

/// All replicas in sync have a record before it counts.
const ACKS_ALL: i16 = -1;

/// How long a broker waits for those replicas.
const REPLICATION: Duration = Duration::from_secs(30);

/// How long records are sent again that a partition's broker does not take: another is elected within a second or two. What is
/// open is aborted then, so that the source does not wait for one partition's sake longer than it must.
const ELECTION: Duration = Duration::from_secs(5);

/// Rest before it is asked again who leads a partition.
const LEADER_REST: Duration = Duration::from_millis(50);

/// The longest rest before records are sent again; the first is [`LEADER_REST`], and each is twice the one before. Brokers that make
/// the files of thousands of new partitions do not take records of many for seconds.
const MAX_REST: Duration = Duration::from_millis(500);

/// A partition's records as they are sent, however often.
struct Numbered {
    topic: TopicId,
    name: TopicName,
    partition: usize,
    records: Bytes,
}

impl Session {
    /// Records that a broker does not take just now are sent again. Whatever else fails once the first are sent, the transaction
    /// has to be aborted.
    pub(super) async fn write(&mut self, batches: Vec<Outgoing>) -> Result<(), StepError> {
        self.add_partitions(&batches).await?;
        let mut unwritten = self.number(batches);
        // A topic that is new may have no leader for longer than one that loses it.
        self.know_leaders(&unwritten, Instant::now() + PROPAGATION)
            .await?;
        let (deadline, mut rest) = (Instant::now() + ELECTION, LEADER_REST);
        loop {
            let requests = self.produce_requests(&unwritten)?;
            let answers = self
                .ask_brokers(requests, PRODUCE_VERSIONS, REPLICATION)
                .await;
            let refused = refused(answers, unwritten.len())?;
            let Some(reason) = refused.values().next() else {
                return Ok(());
            };
            *self.problem.lock() = Some(reason.to_string());
            if Instant::now() >= deadline {
                return Err(StepError::new(Remedy::Abort, reason));
            }
            let is_refused =
                |it: &Numbered| refused.contains_key(&(it.name.clone(), index_of(it.partition)));
            unwritten.retain(is_refused);
            for batch in &unwritten {
                self.partitions.of(batch.topic, batch.partition).leader = None;
            }
            sleep(rest).await;
            rest = (2 * rest).min(MAX_REST);
            self.know_leaders(&unwritten, deadline).await?;
        }
    }

    /// Gives each batch its number among those of its partition.
    fn number(&mut self, batches: Vec<Outgoing>) -> Vec<Numbered> {
        let identity = self.identity();
        let number = |it: Outgoing| {
            let partition = self.partitions.of(it.topic, it.partition);
            let sequence = partition.number(it.batch.count());
            Numbered {
                topic: it.topic,
                name: it.name,
                partition: it.partition,
                records: it.batch.finish(identity, sequence),
            }
        };
        batches.into_iter().map(number).collect()
    }

    async fn know_leaders(
        &mut self,
        batches: &[Numbered],
        deadline: Instant,
    ) -> Result<(), StepError> {
        let mut asked = false;
        loop {
            let leader = |it: &Numbered| self.partitions.leader(it.topic, it.partition);
            let unknown = batches.iter().filter(|it| leader(it).is_none());
            let topics: BTreeMap<TopicName, TopicId> =
                unknown.map(|it| (it.name.clone(), it.topic)).collect();
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
        &self,
        batches: &[Numbered],
    ) -> Result<BTreeMap<i32, ProduceRequest>, StepError> {
        let mut by_leader: BTreeMap<i32, Vec<TopicProduceData>> = BTreeMap::new();
        for batch in batches {
            let (name, index) = (&batch.name, index_of(batch.partition));
            let leader = self.partitions.leader(batch.topic, batch.partition);
            let leader = leader
                .ok_or_else(|| StepError::of_partition(&name.0, index, "no broker leads it now"))?;
            let topics = by_leader.entry(leader).or_default();
            // Those of a topic come one after another.
            if topics.last().is_none_or(|last| last.name != *name) {
                topics.push(TopicProduceData::default().with_name(name.clone()));
            }
            let data = PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(batch.records.clone()));
            if let Some(topic) = topics.last_mut() {
                topic.partition_data.push(data);
            }
        }
        let timeout = i32::try_from(REPLICATION.as_millis()).unwrap_or(i32::MAX);
        let request = |topics| {
            ProduceRequest::default()
                .with_transactional_id(Some(self.id()))
                .with_acks(ACKS_ALL)
                .with_timeout_ms(timeout)
                .with_topic_data(topics)
        };
        let requests = by_leader.into_iter();
        Ok(requests
            .map(|(leader, topics)| (leader, request(topics)))
            .collect())
    }
}

/// The partitions whose broker has refused their records for now, each with the reason. Fails where a broker has not answered, or
/// will not take records.
fn refused(
    answers: Vec<(i32, Result<ProduceResponse, BrokerError>)>,
    sent: usize,
) -> Result<BTreeMap<(TopicName, i32), StepError>, StepError> {
    let (mut refused, mut answered) = (BTreeMap::new(), 0);
    for (broker, answer) in answers {
        let unknown = |error| StepError::new(Remedy::Abort, format!("broker {broker}: {error}"));
        for topic in answer.map_err(unknown)?.responses {
            for partition in topic.partition_responses {
                answered += 1;
                let Some(error) = partition.error_code.err() else {
                    continue;
                };
                let index = partition.index;
                let why = StepError::of_partition(&topic.name.0, index, error);
                if !is_refused_for_now(error) {
                    return Err(why);
                }
                refused.insert((topic.name.clone(), index), why);
            }
        }
    }
    if answered == sent {
        return Ok(refused);
    }
    let reason = format!("brokers tell of {answered} partitions, and {sent} were written to");
    Err(StepError::new(Remedy::Abort, reason))
}

/// Whether a partition may soon take what it has refused: its broker has not heard of it yet, its leader changes, or too few replicas
/// are in sync. Where the answer came too late, and it has the records already, it knows them by their number (KIP-98).
fn is_refused_for_now(error: ResponseError) -> bool {
    use ResponseError as E;
    matches!(
        error,
        E::UnknownTopicOrPartition
            | E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::NotEnoughReplicas
            | E::NotEnoughReplicasAfterAppend
    )
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_response::{
        PartitionProduceResponse, TopicProduceResponse,
    };

    use super::*;
    use crate::produce::topic_name;

    fn answer(partitions: &[(i32, i16)]) -> Vec<(i32, Result<ProduceResponse, BrokerError>)> {
        let partitions = partitions.iter().map(|&(partition, code)| {
            PartitionProduceResponse::default()
                .with_index(partition)
                .with_error_code(code)
        });
        let topic = TopicProduceResponse::default()
            .with_name(topic_name("a"))
            .with_partition_responses(partitions.collect());
        let answer = ProduceResponse::default().with_responses(vec![topic]);
        vec![(1, Ok(answer))]
    }

    #[test]
    fn only_what_was_refused_for_now_is_sent_again() {
        let moved = ResponseError::NotLeaderOrFollower.code();
        let refused = refused(answer(&[(0, 0), (1, moved), (2, 0)]), 3).unwrap_or_default();
        let refused: Vec<_> = refused.into_keys().collect();
        assert_eq!(refused, [(topic_name("a"), 1)]);
    }

    #[test]
    fn no_answer_or_a_lasting_refusal_aborts() {
        let lost = vec![(1, Err(BrokerError::Timeout))];
        let moved = ResponseError::NotLeaderOrFollower.code();
        let too_large = ResponseError::MessageTooLarge.code();
        for (answers, sent) in [
            (lost, 1),
            (answer(&[(0, moved), (1, too_large)]), 2),
            (answer(&[(0, 0)]), 2),
        ] {
            let remedy = refused(answers, sent).map_err(|it| it.remedy);
            assert_eq!(remedy.err(), Some(Remedy::Abort));
        }
    }
}
