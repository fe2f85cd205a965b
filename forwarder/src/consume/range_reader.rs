//! A reader of part of the topic, outside the group: for shards that have to catch up.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Context;
use super::queue::{Chunk, RecordQueue};
use super::source::{SourceError, SourceSettings, open};

/// Records kept ahead: less than the main reader's, since memory is bounded by both together.
const QUEUED_MESSAGES: &str = "10000";
const QUEUED_KILOBYTES: &str = "4096";

/// Reads partitions from given offsets on.
pub(crate) struct RangeReader {
    // Before `consumer`: the queue has to go first.
    records: RecordQueue,
    consumer: Arc<BaseConsumer<Context>>,
}

impl RangeReader {
    pub(super) fn new(
        settings: &SourceSettings,
        starts: &[(i32, i64)],
    ) -> Result<Self, SourceError> {
        let mut config = settings.client_config()?;
        config
            // Past retention there is nothing to catch up with but what is left.
            .set("auto.offset.reset", "earliest")
            .set("queued.min.messages", QUEUED_MESSAGES)
            .set("queued.max.messages.kbytes", QUEUED_KILOBYTES);
        let (consumer, records) = open(&config)?;
        consumer.context().close();
        let failed = |source| SourceError::Client {
            what: "read a range",
            source,
        };
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for &(partition, offset) in starts {
            records.adopt(&settings.topic, partition);
            list.add_partition_offset(&settings.topic, partition, Offset::Offset(offset))
                .map_err(failed)?;
        }
        consumer.assign(&list).map_err(failed)?;
        Ok(Self { records, consumer })
    }

    /// Takes what is there, without waiting.
    pub(crate) fn fill(&self, chunk: &mut Chunk) {
        // Errors come as events; records that are late because of one come when it is over.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        self.records.fill(chunk, Duration::ZERO);
    }
}
