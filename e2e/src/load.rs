//! A factory at work: assets whose events count, written to Kafka at a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::kafka::Broker;

/// How often due events are written.
const TICK: Duration = Duration::from_millis(5);

/// The same from this rate on: producers of many events gather them for longer (Kafka's `linger.ms`), since a request costs the
/// broker about the same whatever is in it.
const HIGH_RATE: u64 = 20_000;
const HIGH_RATE_TICK: Duration = Duration::from_millis(20);

/// How long Kafka may take to confirm the last events, a restart of the broker included.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Number of assets; events go round all of them.
    pub assets: u64,
    /// Events a second, of all assets together.
    pub rate: u64,
}

impl Default for Pace {
    /// Enough that every millisecond of an outage hits events, little enough for two cores with everything beside.
    fn default() -> Self {
        Self {
            assets: 200,
            rate: 4_000,
        }
    }
}

impl Pace {
    fn tick(self) -> Duration {
        if self.rate < HIGH_RATE {
            TICK
        } else {
            HIGH_RATE_TICK
        }
    }
}

/// The name of the asset with this number.
#[must_use]
pub fn asset(number: u64) -> String {
    format!("MACHINE-{number:05}")
}

/// An event: its value is the number of the asset's event, from 0.
#[must_use]
pub fn event(value: u64, at: jiff::Timestamp) -> String {
    event_of("count", value, at)
}

/// An event of another attribute.
#[must_use]
pub fn event_of(id: &str, value: u64, at: jiff::Timestamp) -> String {
    format!(
        r#"{{"ID":"{id}","VALUE":{value},"TAG":"PartCount","TYPE":"Events","attributes":{{"timestamp":"{at}"}}}}"#
    )
}

#[derive(Default)]
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Events that are being written in the background. Stops when dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins to write.
    ///
    /// # Errors
    /// When the producer cannot be made.
    pub fn start(broker: &Broker, topic: &str, pace: Pace) -> Result<Self> {
        Self::go_on(broker, topic, pace, 0)
    }

    /// Goes on where another load of the same pace has stopped, behind its `written` events.
    ///
    /// # Errors
    /// When the producer cannot be made.
    pub fn go_on(broker: &Broker, topic: &str, pace: Pace, written: u64) -> Result<Self> {
        let mut config = broker.producer_config()?;
        // As OpenFactory's own Java and Python producers place keys.
        config.set("partitioner", "murmur2_random");
        let producer = config.create_with_context(Failures::default())?;
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(written)),
        );
        let writer = Writer {
            producer,
            topic: topic.to_owned(),
            pace,
            stop: stop.clone(),
            written: written.clone(),
        };
        Ok(Self {
            stop,
            written,
            thread: Some(std::thread::spawn(move || writer.run())),
        })
    }

    /// Events handed to Kafka's client so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops, and waits until Kafka has every event. Returns the number written, earlier loads included.
    ///
    /// # Errors
    /// When Kafka has not taken all of them.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        let ended = tokio::task::block_in_place(|| thread.join());
        ended.map_err(|_| anyhow::anyhow!("the load's thread broke down"))??;
        Ok(self.written())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    producer: ThreadedProducer<Failures>,
    topic: String,
    pace: Pace,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn run(&self) -> Result<()> {
        let began = Instant::now();
        let first = self.written.load(Ordering::Relaxed);
        let mut next = first;
        while !self.stop.load(Ordering::Relaxed) {
            let due = began.elapsed().as_millis() * u128::from(self.pace.rate) / 1000;
            while u128::from(next - first) < due {
                self.write(next)?;
                next += 1;
                self.written.store(next, Ordering::Relaxed);
            }
            std::thread::sleep(self.pace.tick());
        }
        self.producer
            .flush(FLUSH_TIMEOUT)
            .context("the last events are not written")?;
        let failed = self.producer.context().0.load(Ordering::Relaxed);
        anyhow::ensure!(
            failed == 0,
            "Kafka has not taken {failed} of {} events",
            next - first
        );
        Ok(())
    }

    fn write(&self, number: u64) -> Result<()> {
        let key = asset(number % self.pace.assets);
        let value = event(number / self.pace.assets, jiff::Timestamp::now());
        let mut record = BaseRecord::to(&self.topic).key(&key).payload(&value);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    std::thread::sleep(TICK);
                }
                Err((error, _)) => return Err(error).context("an event is refused"),
            }
        }
    }
}
