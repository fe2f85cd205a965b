//! What `forwarder derive` costs: writes a backlog to Kafka, lets it be derived, and tells the CPU time; then how soon events are seen.
//!
//!     cargo build --release -p ofa-forwarder --bins --examples
//!     KAFKA_BROKER=127.0.0.1:9092 BROKER_PID=$(pgrep -f kafka.Kafka) target/release/examples/derive_bench 10 1000000
//!
//! Arguments: number of groups, number of events. Prints one line: the engine's CPU time for a million events is from its start on, with
//! the making of its topics; `of_further` is that of the events behind the first commit, when these are made. `DERIVED_PARTITIONS` is the engine's.
#![allow(clippy::print_stdout, reason = "the line it prints is its result")]

use std::ops::Range;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use ofa_crds::GroupName;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

/// As in the measurements of ksqlDB that these are compared with.
const PARTITIONS: i32 = 3;
const EVENT_BYTES: usize = 200;

/// Groups whose events are read while it is measured when they are seen. The broker looks at all partitions of a reader whenever one
/// of them gets something, so that one who reads thousands, as nobody does, would cost it more than all else.
const READ_GROUPS: usize = 50;

/// At least two assets in each of 1,000 groups.
const ASSETS: usize = 2000;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Events a second while it is measured when they are seen, and for how long.
const STEADY_RATE: u32 = 2000;
const STEADY: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let groups: usize = arguments.next().context("groups?")?.parse()?;
    let events: usize = arguments.next().context("events?")?.parse()?;
    let bench = Bench {
        broker: std::env::var("KAFKA_BROKER")?,
        run: format!("bench{}", std::process::id()),
        groups,
        events,
        derived_partitions: match std::env::var("DERIVED_PARTITIONS") {
            Ok(partitions) => partitions.parse()?,
            Err(_) => PARTITIONS,
        },
    };
    bench.create_topics().await?;
    bench.load()?;
    let broker_pid: Option<u32> = std::env::var("BROKER_PID")
        .ok()
        .map(|pid| pid.trim().parse())
        .transpose()?;
    let broker_before = broker_pid.map(cpu_seconds).transpose()?;
    let began = Instant::now();
    let mut derive = bench.start()?;
    let first = bench.wait(1)?;
    let (first_commit, first_cpu) = (began.elapsed(), cpu_seconds(derive.id())?);
    bench.wait(events)?;
    let took = began.elapsed();
    let cpu = cpu_seconds(derive.id())?;
    let broker_cpu = broker_pid
        .map(cpu_seconds)
        .transpose()?
        .zip(broker_before)
        .map(|(after, before)| after - before);
    let (seen, further) = bench.latency()?;
    bench.wait(events + further)?;
    derive.kill()?;
    derive.wait()?;
    let found = bench.count()?;
    anyhow::ensure!(
        found == events + further,
        "{found} of {events} and {further} events are derived"
    );
    let per_million =
        |events: usize| Ok::<_, anyhow::Error>(1e6 / f64::from(u32::try_from(events)?));
    let million = per_million(events)?;
    let further_cpu = if first < events {
        (cpu - first_cpu) * per_million(events - first)?
    } else {
        f64::NAN
    };
    println!(
        "groups={groups} events={events} derived={found} wall_s={:.1} first_commit_s={:.1} first_commit_cpu_s={first_cpu:.2} cpu_s_per_million={:.2} of_further={further_cpu:.2} broker_cpu_s_per_million={:.2} seen_p50_ms={} seen_p99_ms={}",
        took.as_secs_f64(),
        first_commit.as_secs_f64(),
        cpu * million,
        broker_cpu.unwrap_or(f64::NAN) * million,
        seen[seen.len() / 2],
        seen[seen.len() * 99 / 100],
    );
    Ok(())
}

struct Bench {
    broker: String,
    run: String,
    groups: usize,
    events: usize,
    derived_partitions: i32,
}

impl Bench {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.broker)
            .set("group.id", &self.run);
        config
    }

    fn source(&self) -> String {
        format!("{}_assets", self.run)
    }

    fn map(&self) -> String {
        format!("{}_map", self.run)
    }

    fn group(&self, index: usize) -> String {
        format!("{}_{}", self.run, index % self.groups)
    }

    async fn create_topics(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let (source, map) = (self.source(), self.map());
        let topics = [
            NewTopic::new(&source, PARTITIONS, TopicReplication::Fixed(1)),
            NewTopic::new(&map, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact"),
        ];
        for result in admin.create_topics(&topics, &AdminOptions::new()).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// Writes the map and the events.
    fn load(&self) -> Result<()> {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.config().set("linger.ms", "50").create()?;
        for asset in 0..ASSETS {
            let level = format!(
                r#"{{"UNS_LEVELS":{{"workcenter":"{}"}}}}"#,
                self.group(asset)
            );
            send(&producer, &self.map(), &format!("asset-{asset}"), &level)?;
        }
        let source = self.source();
        for event in 0..self.events {
            let mut value = format!(
                r#"{{"ID":"temp","VALUE":{event},"TAG":"Temperature","TYPE":"Samples","attributes":{{"timestamp":"2026-01-02T03:04:05.678Z","pad":""#
            );
            value.extend(std::iter::repeat_n(
                'x',
                EVENT_BYTES.saturating_sub(value.len() + 3),
            ));
            value.push_str(r#""}}"#);
            send(
                &producer,
                &source,
                &format!("asset-{}", event * 7 % ASSETS),
                &value,
            )?;
        }
        producer.flush(TIMEOUT)?;
        Ok(())
    }

    /// Sends events of all groups at a steady rate. Returns milliseconds from the producer's call until a reader of committed records sees
    /// an event, in order of size, and how many were sent.
    fn latency(&self) -> Result<(Vec<i64>, usize)> {
        let read_groups = self.groups.min(READ_GROUPS);
        let consumer = self.reader(Offset::End, 0..read_groups)?;
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.config().set("linger.ms", "1").create()?;
        self.wait_for_ends(&consumer, read_groups)?;
        let (source, began) = (self.source(), Instant::now());
        let (mut sent, mut to_be_seen, mut ages) = (0, 0, Vec::new());
        // Whoever is slow shows in the figures; what is lost ends this.
        while began.elapsed() < STEADY || ages.len() < to_be_seen {
            anyhow::ensure!(
                began.elapsed() < STEADY + TIMEOUT,
                "{} of {to_be_seen} seen",
                ages.len()
            );
            let due = began.elapsed().as_millis() * u128::from(STEADY_RATE) / 1000;
            let due = usize::try_from(due)?;
            while began.elapsed() < STEADY && sent < due {
                let value = format!(r#"{{"ID":"temp","VALUE":{}}}"#, now_ms()?);
                let asset = sent * 7 % ASSETS;
                send(&producer, &source, &format!("asset-{asset}"), &value)?;
                sent += 1;
                to_be_seen += usize::from(asset % self.groups < read_groups);
            }
            let record = match consumer.poll(Duration::from_millis(1)) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => continue,
                Some(record) => record?,
            };
            let value = record.payload_view::<str>().context("no value")??;
            let sent_at = value.rsplit(':').next().context("no number")?;
            ages.push(now_ms()? - sent_at.trim_end_matches('}').parse::<i64>()?);
        }
        producer.flush(TIMEOUT)?;
        ages.sort_unstable();
        Ok((ages, sent))
    }

    /// Waits until a reader stands at the end of every partition: what is written from then on is seen.
    fn wait_for_ends(&self, consumer: &BaseConsumer, groups: usize) -> Result<()> {
        let mut left = groups * usize::try_from(self.derived_partitions)?;
        let began = Instant::now();
        while left > 0 {
            anyhow::ensure!(began.elapsed() < TIMEOUT, "{left} ends are not reached");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
                Some(record) => drop(record?),
                None => {}
            }
        }
        Ok(())
    }

    /// A reader of some groups' committed records, which tells the end of each partition.
    fn reader(&self, from: Offset, groups: Range<usize>) -> Result<BaseConsumer> {
        let mut config = self.config();
        // A commit of its own would be one of the engine's group, and ends a poll early.
        config
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for index in groups {
            let topic = self.group(index).parse::<GroupName>()?.topic();
            for partition in 0..self.derived_partitions {
                list.add_partition_offset(&topic, partition, from)?;
            }
        }
        consumer.assign(&list)?;
        Ok(consumer)
    }

    fn start(&self) -> Result<Child> {
        let program = std::env::current_exe()?.with_file_name("../forwarder");
        Command::new(program)
            .args([
                "derive",
                "--topic",
                &self.source(),
                "--map-topic",
                &self.map(),
                "--group",
                &self.run,
            ])
            .args([
                "--kafka-broker",
                &self.broker,
                "--offset-reset",
                "earliest",
                "--port",
                "0",
            ])
            .args(["--bind", "127.0.0.1", "--log-level", "warn"])
            .spawn()
            .context("build the forwarder first")
    }

    /// Waits until this many events are committed; returns how many are.
    fn wait(&self, events: usize) -> Result<usize> {
        let consumer: BaseConsumer = self.config().create()?;
        loop {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&self.source(), 0, PARTITIONS - 1);
            // The group's coordinator may not be chosen yet.
            let committed = consumer.committed_offsets(list, TIMEOUT);
            let offsets: usize = committed
                .iter()
                .flat_map(|list| list.elements())
                .map(|element| match element.offset() {
                    Offset::Offset(offset) => usize::try_from(offset).unwrap_or(0),
                    _ => 0,
                })
                .sum();
            if offsets >= events {
                return Ok(offsets);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What a reader of committed records finds.
    fn count(&self) -> Result<usize> {
        let mut found = 0;
        for first in (0..self.groups).step_by(READ_GROUPS) {
            found += self.count_of(first..self.groups.min(first + READ_GROUPS))?;
        }
        Ok(found)
    }

    fn count_of(&self, groups: Range<usize>) -> Result<usize> {
        let mut open = groups.len() * usize::try_from(self.derived_partitions)?;
        let consumer = self.reader(Offset::Beginning, groups)?;
        let mut found = 0;
        while open > 0 {
            match consumer.poll(TIMEOUT).context("no record and no end")? {
                Ok(_) => found += 1,
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    key: &str,
    value: &str,
) -> Result<()> {
    while producer
        .send(BaseRecord::to(topic).key(key).payload(value))
        .is_err()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn now_ms() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    /// Linux has counted in hundredths of a second for every architecture since 2.6.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .context("stat")?
        .split(' ')
        .collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}
