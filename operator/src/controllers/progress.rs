//! How far consumer groups are: asked of Kafka every few seconds, for as long as anybody wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ofa_crds::kafka::{ControlError, KafkaSettings};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::consumer_group;
use super::control_plane::{ControlPlaneError, PATIENCE};
use super::news::{Board, News, Subject};

/// How old an answer may be.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A group that nobody has asked about for this long is not asked for any more: longer than a pool that is at rest goes
/// without being looked at.
const FORGET_AFTER: Duration = Duration::from_secs(1200);

/// Groups asked for at a time; each question is a client of Kafka for a moment.
const AT_A_TIME: usize = 4;

/// How far a consumer group is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Partitions of the topic.
    pub partitions: u32,
    /// Records behind the end; where nothing is committed, all that a partition holds.
    pub lag: u64,
    /// Records committed in a second, to two digits; `None` until it was asked twice.
    pub rate: Option<u64>,
    /// Members of the group while they share all partitions; `None` during a rebalance.
    pub members: Option<u32>,
    /// Partitions of the topic that members have; `None` while Kafka waits for members.
    pub assigned: Option<u32>,
    /// Members that share the partitions out among themselves, and that Kafka takes none of KIP-848 beside.
    pub classic_members: u32,
}

/// All groups that somebody wants to know about.
pub(super) struct Progresses {
    groups: Arc<Mutex<BTreeMap<String, Group>>>,
    news: Board,
}

struct Group {
    question: Question,
    wanted_at: Instant,
    answer: Option<Progress>,
    /// Sum of the committed positions, and when it was that.
    committed: Option<(u64, Instant)>,
}

#[derive(Clone)]
struct Question {
    kafka: KafkaSettings,
    topic: String,
    group: String,
}

impl Progresses {
    /// Tells `news` of what has changed.
    pub(super) fn new(news: Board) -> Self {
        Self {
            groups: Arc::default(),
            news,
        }
    }

    /// The last answer about a group; `None` when Kafka has not answered.
    pub(super) fn of(&self, kafka: &KafkaSettings, topic: &str, group: &str) -> Option<Progress> {
        let key = format!("{kafka:?} {topic} {group}");
        let mut groups = self.groups.lock();
        let nobody_asks = groups.is_empty();
        let wanted = groups.entry(key).or_insert_with(|| Group {
            question: Question {
                kafka: kafka.clone(),
                topic: topic.to_owned(),
                group: group.to_owned(),
            },
            wanted_at: Instant::now(),
            answer: None,
            committed: None,
        });
        wanted.wanted_at = Instant::now();
        let answer = wanted.answer;
        if nobody_asks {
            tokio::spawn(ask_again_and_again(self.groups.clone(), self.news.clone()));
        }
        answer
    }
}

/// Ends when nobody wants to know any more.
async fn ask_again_and_again(groups: Arc<Mutex<BTreeMap<String, Group>>>, news: Board) {
    loop {
        let questions: Vec<(String, Question)> = {
            let mut groups = groups.lock();
            groups.retain(|_, group| group.wanted_at.elapsed() < FORGET_AFTER);
            let all = groups.iter();
            all.map(|(key, group)| (key.clone(), group.question.clone()))
                .collect()
        };
        if questions.is_empty() {
            return;
        }
        let asked = futures::stream::iter(questions).for_each_concurrent(AT_A_TIME, |(key, it)| {
            let (groups, news) = (&groups, &news);
            async move {
                let answer = tokio::task::spawn_blocking(move || ask(&it)).await;
                let answer = answer.ok().and_then(Result::ok);
                if let Some(group) = groups.lock().get_mut(&key)
                    && group.take(answer, Instant::now())
                {
                    let of = group.question.group.clone();
                    news.tell(News::Of(Subject::Progress(of)));
                }
            }
        });
        asked.await;
        tokio::time::sleep(ASK_EVERY).await;
    }
}

impl Group {
    /// Takes in an answer; returns whether it is news.
    fn take(&mut self, answer: Option<Answer>, now: Instant) -> bool {
        let progress = answer.map(|answer| {
            let before = self.committed.replace((answer.committed, now));
            Progress {
                rate: before.map(|(committed, then)| {
                    rate(answer.committed.saturating_sub(committed), now - then)
                }),
                partitions: answer.partitions,
                lag: answer.lag,
                members: answer.members,
                assigned: answer.assigned,
                classic_members: answer.classic_members,
            }
        });
        std::mem::replace(&mut self.answer, progress) != progress
    }
}

/// Records in a second, to two digits: a steady rate is to be a steady number.
fn rate(records: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let exact = records.saturating_mul(1000) / millis;
    let unit = 10_u64.pow(exact.checked_ilog10().unwrap_or(0).saturating_sub(1));
    exact / unit * unit
}

struct Answer {
    partitions: u32,
    lag: u64,
    committed: u64,
    members: Option<u32>,
    assigned: Option<u32>,
    classic_members: u32,
}

fn ask(question: &Question) -> Result<Answer, ControlPlaneError> {
    let Question {
        kafka,
        topic,
        group,
    } = question;
    let failed = |source| ControlPlaneError::Kafka {
        brokers: kafka.brokers.clone(),
        source,
    };
    let answer = || {
        let mut config = kafka.client_config().map_err(ControlError::from)?;
        let consumer: BaseConsumer = config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false")
            .create()
            .map_err(failed)?;
        let metadata = consumer
            .fetch_metadata(Some(topic), PATIENCE)
            .map_err(|_| ControlPlaneError::NoAnswer(kafka.brokers.clone()))?;
        let all = metadata.topics().iter().flat_map(|it| it.partitions());
        let partitions: Vec<i32> = all.map(|partition| partition.id()).collect();
        if partitions.is_empty() {
            return Err(ControlPlaneError::NoTopic(topic.clone()));
        }
        let described = consumer_group::describe(&consumer, group, PATIENCE).map_err(failed)?;
        let (lag, committed) = positions(&consumer, topic, &partitions).map_err(failed)?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Answer {
            partitions: count(partitions.len()),
            lag,
            committed,
            members: described
                .settled_members(topic, partitions.len())
                .map(count),
            assigned: described.assigned(topic).map(count),
            classic_members: count(described.classic_members()),
        })
    };
    answer().inspect_err(|error| tracing::debug!(topic, group, %error, "lag is unknown"))
}

/// Records behind the end, and the sum of the positions.
fn positions(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: &[i32],
) -> Result<(u64, u64), rdkafka::error::KafkaError> {
    let mut wanted = TopicPartitionList::new();
    for &partition in partitions {
        wanted.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(wanted, PATIENCE)?;
    let (mut lag, mut sum) = (0, 0);
    for &partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        let found = committed.find_partition(topic, partition);
        let position = match found.map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => offset.max(low),
            _ => low,
        };
        lag += u64::try_from(high - position).unwrap_or(0);
        sum += u64::try_from(position).unwrap_or(0);
    }
    Ok((lag, sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_of_a_rate_count() {
        let second = Duration::from_secs(1);
        let rates = [0, 7, 99, 104, 12_789].map(|records| rate(records, second));
        assert_eq!(rates, [0, 7, 99, 100, 12_000]);
        assert_eq!(rate(1000, Duration::from_secs(5)), 200);
    }

    #[test]
    fn a_rate_takes_two_answers_and_silence_is_news() {
        let mut group = Group {
            question: Question {
                kafka: KafkaSettings::plain("k:9092"),
                topic: "t".to_owned(),
                group: "g".to_owned(),
            },
            wanted_at: Instant::now(),
            answer: None,
            committed: None,
        };
        let answer = |committed| {
            Some(Answer {
                partitions: 1,
                lag: 0,
                committed,
                members: Some(1),
                assigned: Some(1),
                classic_members: 1,
            })
        };
        let begin = Instant::now();
        assert!(group.take(answer(100), begin));
        assert_eq!(group.answer.and_then(|it| it.rate), None);
        assert!(group.take(answer(200), begin + Duration::from_secs(1)));
        assert_eq!(group.answer.and_then(|it| it.rate), Some(100));
        assert!(!group.take(answer(300), begin + Duration::from_secs(2)));
        assert!(group.take(None, begin + Duration::from_secs(3)));
        assert_eq!(group.answer, None);
    }
}
