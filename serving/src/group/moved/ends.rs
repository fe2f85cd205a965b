//! Where topics end.

use std::sync::Arc;
use std::time::Duration;

use ofa_crds::kafka::KafkaSettings;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use tokio::time::{Instant, sleep};

use super::Away;
use crate::kafka;

/// How long one request to Kafka may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a transaction may stay open: longer than its time-out.
const OPEN_PATIENCE: Duration = Duration::from_secs(40);
const OPEN_POLL: Duration = Duration::from_millis(20);

/// For each partition the first offset and the one after the last.
pub(super) type Bounds = Vec<(u64, u64)>;

/// Asks Kafka. Needs a Tokio runtime.
#[derive(Clone)]
pub(super) struct Ends {
    committed: Arc<kafka::Consumer>,
    written: Arc<kafka::Consumer>,
}

impl Ends {
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn new(settings: &KafkaSettings) -> anyhow::Result<Self> {
        let consumer = |isolation: &str| {
            kafka::consumer(settings, "ends", &[("isolation.level", isolation)]).map(Arc::new)
        };
        Ok(Self {
            committed: consumer("read_committed")?,
            written: consumer("read_uncommitted")?,
        })
    }

    /// What readers see; `None` without such a topic.
    pub(super) async fn committed(&self, topic: &Arc<str>) -> Result<Option<Bounds>, Away> {
        ask(&self.committed, topic).await
    }

    /// All that is written now, once readers see it: what transactions have written that are open still is waited for.
    pub(super) async fn written(&self, topic: &Arc<str>) -> Result<Option<Bounds>, Away> {
        let Some(written) = ask(&self.written, topic).await? else {
            return Ok(None);
        };
        let asked = Instant::now();
        while asked.elapsed() < OPEN_PATIENCE {
            let Some(visible) = self.committed(topic).await? else {
                return Ok(None);
            };
            let mut both = written.iter().zip(&visible);
            if both.all(|((_, written), (_, visible))| visible >= written) {
                return Ok(Some(written));
            }
            sleep(OPEN_POLL).await;
        }
        Err(Away)
    }
}

async fn ask(consumer: &Arc<kafka::Consumer>, topic: &Arc<str>) -> Result<Option<Bounds>, Away> {
    let (consumer, topic) = (Arc::clone(consumer), Arc::clone(topic));
    let bounds = tokio::task::spawn_blocking(move || bounds(&consumer, &topic));
    match bounds.await {
        Ok(Ok(bounds)) => Ok(bounds),
        Ok(Err(_)) | Err(_) => Err(Away),
    }
}

fn bounds(consumer: &kafka::Consumer, topic: &str) -> Result<Option<Bounds>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().first();
    let count = found.map_or(0, |topic| topic.partitions().len());
    if count == 0 {
        return Ok(None);
    }
    let bounds = (0..count).map(|partition| {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        let offset = |offset: i64| u64::try_from(offset).unwrap_or(0);
        Ok((offset(low), offset(high)))
    });
    bounds.collect::<Result<_, _>>().map(Some)
}
