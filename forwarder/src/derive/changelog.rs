//! Which group's topic has each asset's last record: a compacted topic, written in the transactions of the records themselves.
//!
//! By it an asset's first record in another group is known as such, also by a member that has just been started or was given the
//! partition. It is the changelog of a state store in the words of Kafka Streams, with the asset as key and the group's name as
//! value.

use std::time::Duration;

use ofa_crds::GroupName;
use ofa_crds::kafka::{KafkaSettings, Quiet};
use ofa_crds::names::{asset_of_key, is_topic_char};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::consume::SourceError;

/// It has one: what is written there is little, and of a single partition the end says whether all is read.
pub(crate) const PARTITIONS: i32 = 1;

/// How long to wait for a record before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The topic's name. No group's topic is called so.
pub(crate) fn topic(consumer_group: &str) -> String {
    let legal = |char| if is_topic_char(char) { char } else { '-' };
    let group: String = consumer_group.chars().map(legal).collect();
    format!("asset_stream_{group}_changelog")
}

/// Reads what members of the group have written.
pub(crate) struct Changelog {
    topic: String,
    committed: BaseConsumer<Quiet>,
    written: BaseConsumer<Quiet>,
    /// The offset that is read next.
    next: i64,
}

impl Changelog {
    pub(crate) fn new(kafka: &KafkaSettings, topic: &str) -> Result<Self, SourceError> {
        let consumer = |isolation: &str| {
            let mut config = kafka.client_config()?;
            config
                .set("group.id", "ofa_derive_changelog")
                .set("enable.auto.commit", "false")
                .set("enable.partition.eof", "true")
                .set("auto.offset.reset", "earliest")
                // The end is to be known at once.
                .set("fetch.wait.max.ms", "10")
                .set("isolation.level", isolation);
            config
                .create_with_context(Quiet)
                .map_err(|source| SourceError::Client {
                    what: "read the changelog",
                    source,
                })
        };
        Ok(Self {
            topic: topic.to_owned(),
            committed: consumer("read_committed")?,
            written: consumer("read_uncommitted")?,
            next: 0,
        })
    }

    /// Tells all that has been written since it was read last, once it is known what of it is committed.
    pub(crate) fn read(
        &mut self,
        stop: &CancellationToken,
        mut beat: impl FnMut(),
        mut take: impl FnMut(&str, GroupName),
    ) -> Result<(), KafkaError> {
        let end = self.end(&self.written)?;
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(&self.topic, 0, Offset::Offset(self.next))?;
        self.committed.assign(&start)?;
        while !stop.is_cancelled() {
            beat();
            match self.committed.poll(POLL) {
                Some(Ok(record)) => {
                    self.next = record.offset() + 1;
                    if let Ok(asset) = asset_of_key(record.key())
                        && let Some(Ok(name)) = record.payload().map(std::str::from_utf8)
                        && let Ok(group) = name.parse()
                    {
                        take(asset, group);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) if self.end(&self.committed)? >= end => {
                    break;
                }
                // The rest belongs to a transaction that is open still.
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => return Err(error),
            }
        }
        self.committed.unassign()
    }

    /// The offset behind what a reader sees.
    fn end(&self, reader: &BaseConsumer<Quiet>) -> Result<i64, KafkaError> {
        let (_, end) = reader.fetch_watermarks(&self.topic, 0, REQUEST_TIMEOUT)?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_as_no_groups_topic_is() {
        for group in ["ofa_derive_group", "a group/of mine", "Weld_topic"] {
            assert!(!GroupName::is_topic(&topic(group)), "{group}");
        }
        assert_eq!(
            topic("a group/of mine"),
            "asset_stream_a-group-of-mine_changelog"
        );
    }
}
