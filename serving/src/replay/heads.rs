//! How far the topic reaches: asked of Kafka once for all who wait.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ofa_crds::kafka::KafkaSettings;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tracing::warn;

use crate::kafka;
use crate::range::Unanswered;

/// How long Kafka may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the number of partitions counts as known.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(10);

/// For each partition the offset after its last record.
type Ends = Arc<Vec<u64>>;

/// Hands those who wait to the thread that asks.
#[derive(Clone)]
pub(super) struct Heads {
    waiting: mpsc::Sender<oneshot::Sender<Ends>>,
}

impl Heads {
    /// Starts the thread; it ends with the last of those who could wait.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn start(kafka: &KafkaSettings, topic: &str) -> anyhow::Result<Self> {
        let asker = Asker {
            consumer: kafka::consumer(kafka, "replay_heads", &[])?,
            topic: topic.to_owned(),
            partitions: None,
        };
        let (waiting, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("heads".to_owned())
            .spawn(move || asker.run(&receiver))?;
        Ok(Self { waiting })
    }

    /// Where the topic ends now: everything written before this call lies below.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(super) async fn now(&self) -> Result<Ends, Unanswered> {
        let (reply, ends) = oneshot::channel();
        self.waiting.send(reply).map_err(|_| Unanswered)?;
        ends.await.map_err(|_| Unanswered)
    }
}

struct Asker {
    consumer: kafka::Consumer,
    topic: String,
    partitions: Option<(i32, Instant)>,
}

impl Asker {
    fn run(mut self, receiver: &mpsc::Receiver<oneshot::Sender<Ends>>) {
        while let Ok(first) = receiver.recv() {
            // Only those who wait already: the answer has to be younger than the question.
            let waiting: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
            match self.ask() {
                Ok(ends) => {
                    let ends = Arc::new(ends);
                    for reply in waiting {
                        // One who is gone needs no answer.
                        let _ = reply.send(Arc::clone(&ends));
                    }
                }
                Err(error) => {
                    self.partitions = None;
                    warn!(topic = self.topic, %error, "the end of the topic cannot be asked for; clients come back");
                }
            }
        }
    }

    fn ask(&mut self) -> Result<Vec<u64>, KafkaError> {
        let count = self.partitions()?;
        let mut wanted = TopicPartitionList::with_capacity(usize::try_from(count).unwrap_or(0));
        for partition in 0..count {
            // As a "timestamp", this asks for the end: one request to each broker for all of its partitions.
            wanted.add_partition_offset(&self.topic, partition, Offset::End)?;
        }
        let found = self.consumer.offsets_for_times(wanted, PATIENCE)?;
        let offset = |partition: i32| {
            let element = found.find_partition(&self.topic, partition);
            match element.map(|element| (element.error(), element.offset())) {
                Some((Ok(()), Offset::Offset(offset))) => Ok(u64::try_from(offset).unwrap_or(0)),
                _ => self.watermark(partition),
            }
        };
        (0..count).map(offset).collect()
    }

    /// For a partition that was left out.
    fn watermark(&self, partition: i32) -> Result<u64, KafkaError> {
        let found = self
            .consumer
            .fetch_watermarks(&self.topic, partition, PATIENCE);
        found.map(|(_, high)| u64::try_from(high).unwrap_or(0))
    }

    fn partitions(&mut self) -> Result<i32, KafkaError> {
        if let Some((count, at)) = self.partitions
            && at.elapsed() < PARTITIONS_INTERVAL
        {
            return Ok(count);
        }
        let count = partitions(&self.consumer, &self.topic)?;
        self.partitions = Some((count, Instant::now()));
        Ok(count)
    }
}

/// How many partitions the topic has.
///
/// # Errors
/// When Kafka does not answer or has no such topic.
pub(super) fn partitions(consumer: &kafka::Consumer, topic: &str) -> Result<i32, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let count = metadata
        .topics()
        .first()
        .map_or(0, |it| it.partitions().len());
    if count == 0 {
        let code = RDKafkaErrorCode::UnknownTopicOrPartition;
        return Err(KafkaError::MetadataFetch(code));
    }
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}
