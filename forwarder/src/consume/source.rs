//! The consumer of the forwarder's group.

use std::time::Duration;

use ofa_crds::kafka::KafkaSettings;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::warn;

use super::context::{Context, Rebalance};
use super::error::SourceError;
use super::membership;
use super::range_reader::RangeReader;
use crate::fetch::{Chunk, FetchSettings, Fetcher, ReadAhead};
use crate::produce::ConsumedOffsets;

/// How a group shares its partitions out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GroupProtocol {
    /// Its members do, by the cooperative-sticky strategy (KIP-429).
    Classic,
    /// The broker does (KIP-848); session and heartbeats are settings of the broker.
    Consumer,
}

/// What is read, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    pub(crate) kafka: KafkaSettings,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) protocol: GroupProtocol,
    /// `earliest` or `latest`: where a partition without committed position begins.
    pub(crate) offset_reset: String,
    /// The name of this member, for the broker's logs.
    pub(crate) client_id: String,
}

/// Records read ahead from each broker: one answer that is worked off, one that waits and one under way keep
/// broker and forwarder busy at once, and memory is bounded by them.
const READ_AHEAD: ReadAhead = ReadAhead {
    answers: 3,
    bytes: 1024 * 1024,
};

/// A crashed forwarder's partitions move after this time. Brokers allow 6 s at least by default
/// (`group.min.session.timeout.ms`), so that a move takes at most 8 s.
const SESSION_TIMEOUT_MS: &str = "6000";

/// A member hears by its next heartbeat that partitions change hands. A few small requests a second from each forwarder are
/// nothing to a broker.
const HEARTBEAT_MS: &str = "200";

/// How long a member reads on what it is to let go. Cooperative rebalancing has members join twice, to hear what they give away and
/// to say that they have, and librdkafka joins once a second at most (`rkcg_join_intvl`): who let go at once would leave its
/// partitions to nobody for the rest of that second. What is left of it is enough to drain, and for the heartbeats that the second
/// joining begins with.
const CLASSIC_TIME_TO_LET_GO: Duration = Duration::from_millis(700);

impl SourceSettings {
    /// What reads the records.
    pub(super) fn fetch_settings(&self, read_ahead: ReadAhead) -> FetchSettings {
        FetchSettings {
            kafka: self.kafka.clone(),
            topic: self.topic.clone(),
            client_id: self.client_id.clone(),
            read_ahead,
        }
    }
}

/// How long one request for metadata may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// The member of the group, and what reads the records of its partitions.
pub(crate) struct Source {
    consumer: BaseConsumer<Context>,
    fetcher: Fetcher,
    settings: SourceSettings,
    topic: String,
    brokers: String,
    starts_latest: bool,
    /// The change that was told last, until it is carried out: librdkafka waits for that, also while it leaves the group.
    under_way: Option<Rebalance>,
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) partition: i32,
    /// Offset to go on from; `None` to begin with the oldest record.
    pub(crate) offset: Option<i64>,
    /// What was committed with it.
    pub(crate) metadata: String,
}

impl Source {
    /// Makes the clients; nothing is asked of the group yet. To be called within a runtime.
    pub(crate) fn new(settings: &SourceSettings) -> Result<Self, SourceError> {
        let mut config = settings.kafka.client_config()?;
        config
            .set("group.id", &settings.group)
            .set("client.id", &settings.client_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("topic.metadata.refresh.interval.ms", "30000");
        match settings.protocol {
            GroupProtocol::Classic => config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", SESSION_TIMEOUT_MS)
                .set("heartbeat.interval.ms", HEARTBEAT_MS),
            GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        };
        let consumer = config.create_with_context(Context::default());
        Ok(Self {
            consumer: consumer.map_err(|source| SourceError::Client {
                what: "be made",
                source,
            })?,
            fetcher: Fetcher::start(settings.fetch_settings(READ_AHEAD))?,
            topic: settings.topic.clone(),
            brokers: settings.kafka.brokers.clone(),
            starts_latest: settings.offset_reset == "latest",
            settings: settings.clone(),
            under_way: None,
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
    pub(crate) fn events(&mut self) -> Result<Vec<Rebalance>, SourceError> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                // From before its partition was paused; the fetcher brings it too.
                Ok(_) => {}
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    return Err(self.fatal(code));
                }
                Err(error) => warn!(%error, "Kafka's client reports a problem and goes on"),
            }
        }
        let context = self.consumer.context();
        if let Some(reason) = context.fatal() {
            return Err(SourceError::Fatal(reason));
        }
        let rebalances = context.take_rebalances();
        if let Some(last) = rebalances.last() {
            self.under_way = Some(last.clone());
        }
        Ok(rebalances)
    }

    fn fatal(&self, code: RDKafkaErrorCode) -> SourceError {
        match (self.settings.protocol, code) {
            // Of an older broker, and of a newer one that is told not to.
            (
                GroupProtocol::Consumer,
                RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion,
            ) => SourceError::NoGroupProtocol {
                brokers: self.brokers.clone(),
            },
            (_, code) => SourceError::Fatal(code.to_string()),
        }
    }

    /// The committed position of each partition. One that has none begins with its oldest record, or has its
    /// present end committed where the settings say `latest`: otherwise that would mean a later end after each
    /// restart until the first commit, and pass over what came in between.
    pub(crate) fn committed(&self, partitions: &[i32]) -> Result<Vec<Committed>, SourceError> {
        let what = "read the committed positions";
        let committed = self
            .consumer
            .committed_offsets(self.list(partitions), METADATA_TIMEOUT);
        let committed = self.client(what, committed)?;
        let mut found = Vec::with_capacity(partitions.len());
        for element in committed.elements() {
            self.client(what, element.error())?;
            let partition = element.partition();
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ if self.starts_latest => Some(self.commit_end(partition)?),
                _ => None,
            };
            found.push(Committed {
                partition,
                offset,
                metadata: element.metadata().to_owned(),
            });
        }
        Ok(found)
    }

    fn commit_end(&self, partition: i32) -> Result<i64, SourceError> {
        let marks = self
            .consumer
            .fetch_watermarks(&self.topic, partition, METADATA_TIMEOUT);
        let end = self.client("read the end of a partition", marks)?.1;
        self.commit(&[(partition, end, String::new())], CommitMode::Sync)?;
        Ok(end)
    }

    /// Begins to read partitions, each at the offset given or else with its oldest record.
    pub(crate) fn assign(&mut self, partitions: &[(i32, Option<i64>)]) -> Result<(), SourceError> {
        self.under_way = None;
        let ids: Vec<i32> = partitions.iter().map(|&(partition, _)| partition).collect();
        let list = self.list(&ids);
        self.client("take partitions", self.consumer.incremental_assign(&list))?;
        // The member holds the partitions; their records come through the fetcher.
        self.client("take partitions", self.consumer.pause(&list))?;
        self.fetcher.read(partitions);
        Ok(())
    }

    /// Goes back to earlier offsets. Records taken before and not yet worked off are to be dropped.
    pub(crate) fn rewind(&self, offsets: &[(i32, i64)]) {
        let starts = offsets
            .iter()
            .map(|&(partition, offset)| (partition, Some(offset)));
        self.fetcher.read(&starts.collect::<Vec<_>>());
    }

    /// A second reader of the same topic, from these offsets on, outside the group.
    pub(crate) fn range_reader(&self, starts: &[(i32, i64)]) -> Result<RangeReader, SourceError> {
        RangeReader::new(&self.settings, starts)
    }

    /// Lets partitions go.
    pub(crate) fn unassign(&mut self, partitions: &[i32]) -> Result<(), SourceError> {
        self.under_way = None;
        self.fetcher.remove(partitions);
        self.client(
            "let partitions go",
            self.consumer.incremental_unassign(&self.list(partitions)),
        )
    }

    /// Why a commit failed since the last call, if one did: its offsets have to be committed again.
    pub(crate) fn take_commit_failure(&self) -> Option<String> {
        self.consumer.context().take_commit_failure()
    }

    /// Waits until there is something to take. Dropping the future loses nothing.
    pub(crate) async fn ready(&mut self) {
        self.fetcher.ready().await;
    }

    /// Takes the records that are there.
    pub(crate) fn fill(&mut self, chunk: &mut Chunk) {
        self.fetcher.fill(chunk);
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
    pub(crate) fn consumed(&self, offsets: Vec<(i32, i64)>) -> Option<ConsumedOffsets> {
        let membership = membership::of(&self.consumer);
        // Asked after the place was taken: it loses its meaning only after the assignment is lost.
        let membership = membership.filter(|_| !self.consumer.assignment_lost());
        membership.map(|membership| ConsumedOffsets {
            topic: self.topic.clone(),
            offsets,
            membership,
        })
    }

    /// End of a partition, as far as fetches have told.
    pub(crate) fn known_end(&self, partition: i32) -> Option<i64> {
        self.fetcher.known_end(partition)
    }

    /// How long partitions that the group takes away are better read on before they are let go.
    pub(crate) fn time_to_let_go(&self) -> Duration {
        match self.settings.protocol {
            GroupProtocol::Classic => CLASSIC_TIME_TO_LET_GO,
            GroupProtocol::Consumer => Duration::ZERO,
        }
    }

    /// From now on partitions are let go at once; dropping the source then leaves the group.
    pub(crate) fn close(&self) {
        self.consumer.context().close();
    }

    /// Carries out what nobody will carry out any more.
    fn settle(&mut self) {
        let noted = self.consumer.context().take_rebalances();
        for rebalance in self.under_way.take().into_iter().chain(noted) {
            let done = match rebalance {
                Rebalance::Assign(new) => self.consumer.incremental_assign(&self.list(&new)),
                Rebalance::Revoke(gone) | Rebalance::Lost(gone) => {
                    self.consumer.incremental_unassign(&self.list(&gone))
                }
            };
            if let Err(error) = done {
                warn!(%error, "a change of the group could not be carried out while leaving it");
            }
        }
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

/// The consumer leaves the group as it is dropped, and waits until all partitions are let go: by whom, after an error, if not
/// by us.
impl Drop for Source {
    fn drop(&mut self) {
        self.close();
        self.settle();
    }
}
