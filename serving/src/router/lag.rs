//! How far consumer groups are behind the ends of what they read.
//!
//! Kafka knows it, so nobody has to tell: a client under the group's name that never joins may ask for its positions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ofa_crds::control::StreamReader;
use ofa_crds::kafka::KafkaSettings;
use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset, TopicPartitionList};
use tracing::debug;

use crate::kafka;

/// How old an answer may be: a page asks every few seconds, and many pages may ask.
const FRESH: Duration = Duration::from_secs(2);

/// How old an answer may become while Kafka does not give a newer one.
const STALE: Duration = Duration::from_secs(15);

/// How long one request to Kafka may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most readers remembered; beyond, those are forgotten that nobody has asked for.
const MAX_READERS: usize = 1000;

/// One reader whose lag is told.
#[derive(Clone)]
pub struct ReaderLag {
    /// Who knows.
    pub lags: Lags,
    /// Whose it is.
    pub reader: StreamReader,
}

impl ReaderLag {
    /// Records that it is behind, as far as is known.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        self.lags.of(&self.reader)
    }
}

/// The lags that were asked for.
#[derive(Clone)]
pub struct Lags {
    kafka: KafkaSettings,
    known: Arc<Mutex<HashMap<StreamReader, Known>>>,
}

struct Known {
    lag: u64,
    at: Option<Instant>,
    asked_at: Instant,
    asking: bool,
}

impl Lags {
    /// Nothing known yet.
    #[must_use]
    pub fn new(kafka: &KafkaSettings) -> Self {
        Self {
            kafka: kafka.clone(),
            known: Arc::default(),
        }
    }

    /// Records that the reader is behind; `None` while that is not known. What is not fresh is asked for, for the next who wants to know.
    /// Needs a Tokio runtime.
    pub fn of(&self, reader: &StreamReader) -> Option<u64> {
        let now = Instant::now();
        let mut known = self.known.lock();
        if known.len() >= MAX_READERS {
            known.retain(|_, it| it.asking || now - it.asked_at < STALE);
        }
        let entry = known.entry(reader.clone()).or_insert_with(|| Known {
            lag: 0,
            at: None,
            asked_at: now,
            asking: false,
        });
        entry.asked_at = now;
        let age = entry.at.map(|at| now - at);
        if !entry.asking && age.is_none_or(|age| age >= FRESH) {
            entry.asking = true;
            let (lags, reader) = (self.clone(), reader.clone());
            tokio::task::spawn_blocking(move || lags.look(&reader));
        }
        age.is_some_and(|age| age < STALE).then_some(entry.lag)
    }

    fn look(&self, reader: &StreamReader) {
        let lag = ask(&self.kafka, reader);
        let mut known = self.known.lock();
        let Some(entry) = known.get_mut(reader) else {
            return;
        };
        entry.asking = false;
        match lag {
            Ok(lag) => (entry.lag, entry.at) = (lag, Some(Instant::now())),
            Err(error) => debug!(%error, ?reader, "a lag is not known at the moment"),
        }
    }
}

fn ask(settings: &KafkaSettings, reader: &StreamReader) -> anyhow::Result<u64> {
    let topic = &reader.topic;
    let consumer = kafka::reader_of_positions(settings, &reader.consumer_group)?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    let mut wanted = TopicPartitionList::new();
    for partition in found {
        wanted.add_partition(topic, partition.id());
    }
    let mut lag = 0;
    for element in consumer.committed_offsets(wanted, PATIENCE)?.elements() {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), PATIENCE)?;
        let next = match element.offset() {
            Offset::Offset(next) => next.max(low),
            _ => low,
        };
        lag += u64::try_from(high - next).unwrap_or(0);
    }
    Ok(lag)
}
