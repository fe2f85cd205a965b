//! The consumer of the forwarder's group.

use std::sync::Arc;
use std::time::Duration;

use ofa_crds::kafka::{KafkaSettings, KafkaSettingsError};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use thiserror::Error;
use tracing::warn;

use super::context::{Context, Rebalance};
use super::queue::{Chunk, RecordQueue};
use super::range_reader::RangeReader;

/// What is read, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    pub(crate) kafka: KafkaSettings,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// `earliest` or `latest`: where a partition without committed position begins.
    pub(crate) offset_reset: String,
    /// The name of this member, for the broker's logs.
    pub(crate) client_id: String,
}

/// Why Kafka cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// The broker does not answer.
    #[error(
        "Kafka at {brokers} cannot be reached ({source}); check KAFKA_BROKER and that the broker runs"
    )]
    Unreachable {
        /// The address in use.
        brokers: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// There is no such topic.
    #[error(
        "Kafka at {brokers} has no topic {topic}; create it, or set KAFKA_TOPIC to the one to read"
    )]
    NoTopic {
        /// The address in use.
        brokers: String,
        /// The topic.
        topic: String,
    },
    /// The client can do nothing more; a new process can.
    #[error("Kafka's client reports a fatal error: {0}; the forwarder has to be started again")]
    Fatal(String),
    /// Something the client refused to do.
    #[error("Kafka's client cannot {what}: {source}")]
    Client {
        /// What was attempted.
        what: &'static str,
        /// librdkafka's reason.
        source: KafkaError,
    },
}

/// Records kept by librdkafka ahead of us. Small, since memory is bounded by it, and enough with
/// a quick back-off.
const QUEUED_MESSAGES: &str = "50000";
const QUEUED_KILOBYTES: &str = "16384";

/// librdkafka's default of 1 s makes a reader that is slower than the broker sleep with a full queue
/// (measured: 0.5 M in place of 1.7 M records a second).
const QUEUE_BACKOFF_MS: &str = "2";

/// A crashed forwarder's partitions move after this time. Brokers allow 6 s at least by default
/// (`group.min.session.timeout.ms`), and with the heartbeat below a move takes at most 8 s.
const SESSION_TIMEOUT_MS: &str = "6000";
const HEARTBEAT_MS: &str = "1500";

impl SourceSettings {
    /// What every consumer of ours has in common.
    pub(super) fn client_config(&self) -> Result<ClientConfig, SourceError> {
        let mut config = self.kafka.client_config()?;
        config
            .set("group.id", &self.group)
            .set("client.id", &self.client_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS)
            .set("fetch.wait.max.ms", "100");
        Ok(config)
    }
}

/// A consumer and a queue for its records.
pub(super) fn open(
    config: &ClientConfig,
) -> Result<(Arc<BaseConsumer<Context>>, RecordQueue), SourceError> {
    let failed = |source| SourceError::Client {
        what: "be made",
        source,
    };
    let consumer: BaseConsumer<Context> = config
        .create_with_context(Context::default())
        .map_err(failed)?;
    let consumer = Arc::new(consumer);
    let records = RecordQueue::new(consumer.clone())
        .ok_or_else(|| SourceError::Fatal("no memory for a queue".to_owned()))?;
    Ok((consumer, records))
}

/// How long one request for metadata may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer and the queue its records come through.
pub(crate) struct Source {
    // Before `consumer`: the queue has to go first.
    records: RecordQueue,
    consumer: Arc<BaseConsumer<Context>>,
    settings: SourceSettings,
    topic: String,
    brokers: String,
    starts_latest: bool,
}

impl Source {
    /// Makes the client; nothing is asked of Kafka yet.
    pub(crate) fn new(settings: &SourceSettings) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        config
            .set("auto.offset.reset", &settings.offset_reset)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT_MS)
            .set("heartbeat.interval.ms", HEARTBEAT_MS)
            .set("queued.min.messages", QUEUED_MESSAGES)
            .set("queued.max.messages.kbytes", QUEUED_KILOBYTES)
            .set("topic.metadata.refresh.interval.ms", "30000");
        let (consumer, records) = open(&config)?;
        Ok(Self {
            records,
            consumer,
            topic: settings.topic.clone(),
            brokers: settings.kafka.brokers.clone(),
            starts_latest: settings.offset_reset == "latest",
            settings: settings.clone(),
        })
    }

    /// Asks whether the topic is there.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        let unreachable = |source| SourceError::Unreachable {
            brokers: self.brokers.clone(),
            source,
        };
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), METADATA_TIMEOUT)
            .map_err(unreachable)?;
        let found = metadata
            .topics()
            .iter()
            .any(|topic| topic.name() == self.topic && !topic.partitions().is_empty());
        let missing = || SourceError::NoTopic {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
        };
        if found { Ok(()) } else { Err(missing()) }
    }

    /// Joins the group.
    pub(crate) fn subscribe(&self) -> Result<(), SourceError> {
        self.client("subscribe", self.consumer.subscribe(&[&self.topic]))
    }

    /// Lets librdkafka report, and returns what changed. Has to be called often.
    pub(crate) fn events(&self) -> Result<Vec<Rebalance>, SourceError> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                // Cannot be, since partitions are adopted before they are assigned. If it were, going on
                // would lose the record; a new process reads it again.
                Ok(_) => {
                    return Err(SourceError::Fatal(
                        "a record came over the main queue".to_owned(),
                    ));
                }
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    return Err(SourceError::Fatal(code.to_string()));
                }
                Err(error) => warn!(%error, "Kafka's client reports a problem and goes on"),
            }
        }
        let context = self.consumer.context();
        if let Some(reason) = context.fatal() {
            return Err(SourceError::Fatal(reason));
        }
        Ok(context.take_rebalances())
    }

    /// The committed position of each partition, and the metadata committed with it. A partition without
    /// one gets its present end committed where the settings say `latest`: otherwise that would mean a
    /// later end after each restart until the first commit, and pass over what came in between.
    pub(crate) fn committed(&self, partitions: &[i32]) -> Result<Vec<(i32, String)>, SourceError> {
        let committed = self
            .consumer
            .committed_offsets(self.list(partitions), METADATA_TIMEOUT);
        let committed = self.client("read the committed positions", committed)?;
        let mut found = Vec::with_capacity(partitions.len());
        for element in committed.elements() {
            let partition = element.partition();
            if self.starts_latest && element.offset() == Offset::Invalid {
                let marks =
                    self.consumer
                        .fetch_watermarks(&self.topic, partition, METADATA_TIMEOUT);
                let end = self.client("read the end of a partition", marks)?.1;
                self.commit(&[(partition, end, String::new())], CommitMode::Sync)?;
            }
            found.push((partition, element.metadata().to_owned()));
        }
        Ok(found)
    }

    /// Begins to read partitions, each at the offset given or else at its committed position.
    pub(crate) fn assign(&self, partitions: &[(i32, Option<i64>)]) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &(partition, start) in partitions {
            self.records.adopt(&self.topic, partition);
            match start {
                Some(offset) => {
                    let added =
                        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
                    self.client("take partitions", added)?;
                }
                None => {
                    list.add_partition(&self.topic, partition);
                }
            }
        }
        self.client("take partitions", self.consumer.incremental_assign(&list))
    }

    /// Goes back to earlier offsets. Records taken before and not yet worked off are to be dropped.
    pub(crate) fn rewind(&self, offsets: &[(i32, i64)]) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for &(partition, offset) in offsets {
            let added = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
            self.client("go back", added)?;
        }
        let result = self.client(
            "go back",
            self.consumer.seek_partitions(list, METADATA_TIMEOUT),
        )?;
        for element in result.elements() {
            self.client("go back", element.error())?;
        }
        Ok(())
    }

    /// A second reader of the same topic, from these offsets on, outside the group.
    pub(crate) fn range_reader(&self, starts: &[(i32, i64)]) -> Result<RangeReader, SourceError> {
        RangeReader::new(&self.settings, starts)
    }

    /// Lets partitions go.
    pub(crate) fn unassign(&self, partitions: &[i32]) -> Result<(), SourceError> {
        self.client(
            "let partitions go",
            self.consumer.incremental_unassign(&self.list(partitions)),
        )
    }

    /// Why a commit failed since the last call, if one did: its offsets have to be committed again.
    pub(crate) fn take_commit_failure(&self) -> Option<String> {
        self.consumer.context().take_commit_failure()
    }

    /// Takes records; waits for the first one at most this long.
    pub(crate) fn fill(&self, chunk: &mut Chunk, wait: Duration) {
        self.records.fill(chunk, wait);
    }

    /// Commits the offsets to go on from, each with its metadata.
    pub(crate) fn commit(
        &self,
        offsets: &[(i32, i64, String)],
        mode: CommitMode,
    ) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset, metadata) in offsets {
            let mut element = list.add_partition(&self.topic, *partition);
            element.set_metadata(metadata);
            self.client("commit", element.set_offset(Offset::Offset(*offset)))?;
        }
        self.client("commit", self.consumer.commit(&list, mode))
    }

    /// Offsets to go on from and this member's place in the group, as a producer's transaction takes them.
    /// `None` when the group has given this member up: its place would say nothing any more, and Kafka take
    /// the offsets from anybody.
    pub(crate) fn offsets_for_transaction(
        &self,
        offsets: &[(i32, i64)],
    ) -> Result<Option<(TopicPartitionList, ConsumerGroupMetadata)>, SourceError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for &(partition, offset) in offsets {
            let added = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
            self.client("commit", added)?;
        }
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| SourceError::Fatal("no consumer group".to_owned()))?;
        // Asked after the place was taken: it loses its meaning only after the assignment is lost.
        Ok((!self.consumer.assignment_lost()).then_some((list, group)))
    }

    /// End of a partition, as far as fetches have told.
    pub(crate) fn known_end(&self, partition: i32) -> Option<i64> {
        self.records.known_end(&self.topic, partition)
    }

    /// From now on partitions are let go at once; dropping the source then leaves the group.
    pub(crate) fn close(&self) {
        self.consumer.context().close();
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    fn client<T>(
        &self,
        what: &'static str,
        result: Result<T, KafkaError>,
    ) -> Result<T, SourceError> {
        result.map_err(|source| SourceError::Client { what, source })
    }
}
