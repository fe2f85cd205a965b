//! The least that has to be done between Kafka and NATS: batches from librdkafka, the id moved from the event into the
//! subject, PUB lines in large writes, a PONG for each chunk, commits of what was answered.
//!
//! It checks nothing, survives nothing and proves nothing about delivery; it says what this machine allows.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::protocol::{Publisher, without_id};
use super::records::Records;

/// Records behind one PONG of each node.
const CHUNK: u64 = 20_000;

/// Chunks under way at a time.
const WINDOW: usize = 8;

/// How often is committed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait for records.
const POLL: Duration = Duration::from_millis(100);

/// `bench ceiling`.
#[derive(Debug, clap::Args)]
pub struct CeilingArgs {
    /// Kafka
    #[arg(long)]
    brokers: String,
    /// Topic to read from its beginning
    #[arg(long)]
    topic: String,
    /// A node of each shard, host:port separated by commas
    #[arg(long, value_delimiter = ',')]
    nats: Vec<String>,
    /// Records to forward
    #[arg(long)]
    count: u64,
}

/// What a run has taken, from the first record to the last PONG.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Messages a second.
    pub rate: f64,
    /// Seconds of processor time for a million messages.
    pub cpu: f64,
}

impl Figures {
    /// From what was measured.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // Far below 2^52 messages.
    pub fn new(messages: u64, elapsed: Duration, cpu: Duration) -> Self {
        let messages = messages as f64;
        Self {
            rate: messages / elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / messages,
        }
    }
}

/// Runs the ceiling and prints one line, in words that [`crate::bench`] reads.
///
/// # Errors
/// When Kafka or a node cannot be reached.
pub fn run(args: &CeilingArgs) -> Result<()> {
    let Figures { rate, cpu } = Ceiling::new(args)?.run(args.count)?;
    writeln!(
        std::io::stdout(),
        "ceiling: {rate:.0} msg/s | self {cpu:.3} cpu-s/M"
    )?;
    Ok(())
}

struct Ceiling {
    topic: String,
    records: Records,
    publishers: Vec<Publisher>,
    /// Positions behind the records of each chunk under way.
    under_way: VecDeque<BTreeMap<i32, i64>>,
    positions: BTreeMap<i32, i64>,
    committed_at: Instant,
}

impl Ceiling {
    fn new(args: &CeilingArgs) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &args.brokers)
            .set("group.id", format!("ceiling-{}", std::process::id()))
            .set("enable.auto.commit", "false")
            .set("queued.min.messages", "1000000")
            .set("queued.max.messages.kbytes", "131072")
            .set("fetch.message.max.bytes", "4194304")
            .set("fetch.wait.max.ms", "100")
            .create()?;
        assign(&consumer, &args.topic)?;
        let publishers = args.nats.iter().map(|address| Publisher::connect(address));
        Ok(Self {
            topic: args.topic.clone(),
            publishers: publishers.collect::<Result<_>>()?,
            records: Records::new(consumer)?,
            under_way: VecDeque::new(),
            positions: BTreeMap::new(),
            committed_at: Instant::now(),
        })
    }

    fn run(mut self, count: u64) -> Result<Figures> {
        let (mut began, mut done, mut unanswered) = (None, 0, 0);
        while done < count {
            let taken = self.forward_batch()?;
            if taken > 0 && began.is_none() {
                began = Some((Instant::now(), cpu_time()?));
            }
            (done, unanswered) = (done + taken, unanswered + taken);
            if unanswered >= CHUNK || (taken == 0 && unanswered > 0) {
                unanswered = 0;
                self.end_chunk(WINDOW)?;
            }
        }
        self.end_chunk(0)?;
        let (began, cpu) = began.context("nothing was forwarded")?;
        Ok(Figures::new(
            done,
            began.elapsed(),
            cpu_time()?.saturating_sub(cpu),
        ))
    }

    fn forward_batch(&mut self) -> Result<u64> {
        let Self {
            records,
            publishers,
            positions,
            ..
        } = self;
        let mut result = Ok(());
        let taken = records.take(POLL, |record| {
            positions.insert(record.partition, record.offset + 1);
            let shard = fnv(record.key) % publishers.len();
            if let Some((id, payload)) = without_id(record.value)
                && let Err(error) = publishers[shard].publish(record.key, id, payload)
            {
                result = Err(error);
            }
        })?;
        result.map(|()| taken)
    }

    /// Asks every node to answer, and waits until at most `window` chunks are unanswered.
    fn end_chunk(&mut self, window: usize) -> Result<()> {
        for publisher in &mut self.publishers {
            publisher.ping()?;
        }
        self.under_way.push_back(self.positions.clone());
        while self.under_way.len() > window {
            for publisher in &self.publishers {
                publisher.pong()?;
            }
            let Some(answered) = self.under_way.pop_front() else {
                break;
            };
            if self.committed_at.elapsed() >= COMMIT_INTERVAL || window == 0 {
                self.committed_at = Instant::now();
                self.commit(&answered)?;
            }
        }
        Ok(())
    }

    fn commit(&self, positions: &BTreeMap<i32, i64>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in positions {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(self.records.consumer().commit(&list, CommitMode::Async)?)
    }
}

/// Takes all partitions, from their beginning.
fn assign(consumer: &BaseConsumer, topic: &str) -> Result<()> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let mut list = TopicPartitionList::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    Ok(consumer.assign(&list)?)
}

fn cpu_time() -> Result<Duration> {
    crate::process::cpu_time(std::process::id())
}

/// FNV-1a: cheaper than the ring's SHA-256, since which shard has an asset does not matter here.
fn fnv(key: &[u8]) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from((hash ^ (hash >> 32)) & 0xffff_ffff).unwrap_or_default()
}
