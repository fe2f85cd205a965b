//! Copies of records that cannot be forwarded, on a topic of their own.
//!
//! A position is committed only when the copy is in Kafka. So when that topic takes nothing, the
//! forwarder waits, and says so: whoever asks for dead letters wants all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use ofa_crds::kafka::{KafkaSettings, KafkaSettingsError};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::mpsc;
use tracing::warn;

use crate::consume::SourceError;
use crate::publish::{Confirmed, SinkId, Span};
use crate::route::{Poison, Record, Tenure};

/// The sink that stands for the topic: shards count from 0.
const SINK: SinkId = SinkId(u32::MAX);

/// Bytes on their way before the forwarder waits, one record more or less.
const WINDOW_BYTES: usize = 1024 * 1024;

/// How long Kafka may take for a copy before it is sent again.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A record's copy.
struct Letter {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    reason: Poison,
    span: Span,
}

impl Letter {
    fn size(&self) -> usize {
        // The fixed part counts too: a million tombstones are no small thing.
        128 + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Where copies are handed to.
pub(crate) struct DeadLetters {
    letters: mpsc::UnboundedSender<Letter>,
    in_flight: Arc<AtomicUsize>,
}

impl DeadLetters {
    /// Starts the task that writes copies of records of `source` to `topic`.
    pub(crate) fn start(
        kafka: &KafkaSettings,
        source: &str,
        topic: &str,
        confirmed: mpsc::UnboundedSender<Confirmed>,
    ) -> Result<Self, SourceError> {
        let mut config = kafka
            .client_config()
            .map_err(|error: KafkaSettingsError| SourceError::Settings(error))?;
        config.set("enable.idempotence", "true");
        let failed = |source| SourceError::Client {
            what: "write dead letters",
            source,
        };
        let producer: FutureProducer = config.create().map_err(failed)?;
        let (letters, inbox) = mpsc::unbounded_channel();
        let in_flight = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            producer,
            source: source.to_owned(),
            topic: topic.to_owned(),
        };
        tokio::spawn(write(writer, inbox, in_flight.clone(), confirmed));
        Ok(Self { letters, in_flight })
    }

    /// Whether the forwarder has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > WINDOW_BYTES
    }

    /// Hands a copy over; returns the sink and the span that will be confirmed.
    pub(crate) fn send(
        &self,
        record: &Record<'_>,
        tenure: Tenure,
        reason: Poison,
    ) -> (SinkId, Span) {
        let (partition, offset) = (record.partition, record.offset);
        let span = Span {
            partition,
            tenure,
            first: offset,
            last: offset,
        };
        let letter = Letter {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            reason,
            span,
        };
        self.in_flight.fetch_add(letter.size(), Ordering::Relaxed);
        // The task ends only after this handle is dropped.
        let _ = self.letters.send(letter);
        (SINK, span)
    }
}

struct Writer {
    producer: FutureProducer,
    source: String,
    topic: String,
}

/// Writes copies, many at a time, and confirms them in their order.
async fn write(
    writer: Writer,
    mut inbox: mpsc::UnboundedReceiver<Letter>,
    in_flight: Arc<AtomicUsize>,
    confirmed: mpsc::UnboundedSender<Confirmed>,
) {
    let mut writing = FuturesOrdered::new();
    let mut open = true;
    while open || !writing.is_empty() {
        tokio::select! {
            letter = inbox.recv(), if open => match letter {
                Some(letter) => writing.push_back(writer.write(letter)),
                None => open = false,
            },
            Some(letter) = writing.next() => {
                in_flight.fetch_sub(letter.size(), Ordering::Relaxed);
                // Nobody listens only when the forwarder is on its way out.
                let _ = confirmed.send(Confirmed { sink: SINK, spans: vec![letter.span] });
            }
        }
    }
}

impl Writer {
    /// Tries until Kafka has the copy.
    async fn write(&self, letter: Letter) -> Letter {
        loop {
            let record = FutureRecord {
                topic: &self.topic,
                partition: None,
                payload: letter.value.as_deref(),
                key: letter.key.as_deref(),
                timestamp: None,
                headers: Some(self.headers(&letter)),
            };
            match self.producer.send(record, SEND_TIMEOUT).await {
                Ok(_) => return letter,
                Err((error, _)) => {
                    warn!(topic = self.topic, %error, "the dead-letter topic takes nothing; the forwarder waits for it");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn headers(&self, letter: &Letter) -> OwnedHeaders {
        let Span {
            partition, first, ..
        } = letter.span;
        let origin = format!("{}/{partition}/{first}", self.source);
        OwnedHeaders::new()
            .insert(Header {
                key: "ofa-origin",
                value: Some(&origin),
            })
            .insert(Header {
                key: "ofa-reason",
                value: Some(&letter.reason.to_string()),
            })
    }
}
