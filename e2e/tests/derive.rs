//! `forwarder derive` is killed, frozen and started again under load: each group's topic must have each of its
//! events once, in order.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ofa_crds::GroupName;
use ofa_e2e::engine::{MAP, map_record, register};
use ofa_e2e::kafka::{Broker, Record};
use ofa_e2e::process::Process;
use ofa_e2e::{engine, tools, wait};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use rustix::process::Signal;
use tokio::time::sleep;

const SOURCE: &str = "ofa_assets";
const GROUP: &str = "derive";
const PARTITIONS: i32 = 3;
const GROUPS: [&str; 5] = [
    "Weld",
    "weld",
    "WC-1",
    "Halle 3/Süd",
    "'; DROP STREAM x; --",
];
const ASSETS: usize = 40;

/// Long enough for a member to be missed and a transaction of a dead one to be given up, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// What a platform gives a program to end in, on a busy machine: less than the group waits for one that has gone without a word.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_and_repeats_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = broker_with_assets(folder.path()).await?;
    let mut one = Member::start(&broker, "d1", folder.path()).await?;
    let mut other = Member::start(&broker, "d2", folder.path()).await?;
    let load = Load::start(&broker);

    for round in 0..5_u64 {
        // At another point of the transactions each time.
        sleep(Duration::from_millis(700 + 37 * round)).await;
        one.process.kill()?;
        one = Member::start(&broker, "d1", folder.path()).await?;
    }
    other.process.kill()?;
    sleep(Duration::from_secs(2)).await;
    // Frozen for longer than the group waits for it: what it then tries to go on with is another's.
    one.process.signal(Signal::STOP)?;
    other = Member::start(&broker, "d2", folder.path()).await?;
    sleep(Duration::from_secs(10)).await;
    one.process.signal(Signal::CONT)?;
    sleep(Duration::from_secs(2)).await;

    let mut sent = load.stop()?;
    // An asset may begin to send as soon as it is registered, in a group that nobody has heard of.
    let late = "late-asset";
    register(&broker, late, "Late")?;
    let events: Vec<Record> = (0..100).map(|sequence| event(late, sequence)).collect();
    broker.produce(SOURCE, &events)?;
    sent.insert(late.to_owned(), 100);

    all_derived(&broker).await?;
    each_once_in_order(&broker, &[&GROUPS[..], &["Late"]].concat(), &sent)?;
    drop((one, other));
    Ok(())
}

/// Kafka ends the transaction of a member that is frozen for longer than it allows; the member does it again, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_took_too_long_is_done_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = broker_with_assets(folder.path()).await?;
    let settings = [
        ("TRANSACTION_TIMEOUT_MS", "20000"),
        // A transaction is open nearly all the time.
        ("COMMIT_INTERVAL_MS", "1000"),
    ];
    let mut member = Member::start_with(&broker, "d1", &settings, folder.path()).await?;
    let load = Load::start(&broker);
    sleep(Duration::from_secs(3)).await;
    member.process.signal(Signal::STOP)?;
    // Kafka looks for transactions that take too long every ten seconds.
    sleep(Duration::from_secs(33)).await;
    member.process.signal(Signal::CONT)?;
    sleep(Duration::from_secs(2)).await;
    all_is_there_and_it_lives(&broker, load, &mut member).await
}

/// Whether a broker that dies has taken a request or not, its records are there once when it is back. With transactions as brokers
/// before 4.0 have them: what newer ones do in place of a producer (KIP-890) is not needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_costs_and_repeats_no_event() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut broker = broker_with_assets(folder.path()).await?;
    let downgraded = tools::server("kafka-cli")?
        .args(["FeatureCommand", "--bootstrap-server", &broker.address()])
        .args(["downgrade", "--feature", "transaction.version=1"])
        .output()?;
    ensure!(downgraded.status.success(), "{downgraded:?}");
    let mut member = Member::start(&broker, "d1", folder.path()).await?;
    let load = Load::start(&broker);
    for round in 0..3_u64 {
        sleep(Duration::from_millis(2000 + 37 * round)).await;
        broker.kill()?;
        broker.run().await?;
    }
    sleep(Duration::from_secs(1)).await;
    all_is_there_and_it_lives(&broker, load, &mut member).await
}

/// A source's batch is compressed, and takes records that are larger than what topics take by default.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_larger_than_topics_take_by_default_is_derived() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = broker_with_assets(folder.path()).await?;
    let _member = Member::start(&broker, "d1", folder.path()).await?;
    let mut large = event("asset-0", 0);
    let pad = "x".repeat(4 << 20);
    large.value = Some(
        format!(r#"{{"ID":"n","VALUE":0,"TAG":"Count","TYPE":"Samples","pad":"{pad}"}}"#).into(),
    );
    let mut config = broker.producer_config()?;
    let producer: ThreadedProducer<DefaultProducerContext> =
        config.set("compression.type", "zstd").create()?;
    let mut out = BaseRecord::<[u8], [u8]>::to(SOURCE).partition(large.partition);
    (out.key, out.payload) = (large.key.as_deref(), large.value.as_deref());
    producer.send(out).map_err(|(error, _)| error)?;
    producer.flush(LIMIT)?;
    let others = (1..ASSETS).map(|asset| event(&format!("asset-{asset}"), 0));
    let further: Vec<Record> = others.chain([event("asset-0", 1)]).collect();
    broker.produce(SOURCE, &further)?;
    all_derived(&broker).await?;
    let sent = (0..ASSETS).map(|asset| (format!("asset-{asset}"), 1 + u64::from(asset == 0)));
    each_once_in_order(&broker, &GROUPS, &sent.collect())
}

async fn all_is_there_and_it_lives(broker: &Broker, load: Load, member: &mut Member) -> Result<()> {
    let sent = load.stop()?;
    all_derived(broker).await?;
    each_once_in_order(broker, &GROUPS, &sent)?;
    let ended = member.process.ended()?;
    ensure!(ended.is_none(), "it has ended: {ended:?}");
    Ok(())
}

async fn broker_with_assets(folder: &Path) -> Result<Broker> {
    let broker = Broker::start(folder).await?;
    broker.create_topic(SOURCE, PARTITIONS).await?;
    broker.create_topic(MAP, 1).await?;
    let entry = |asset| map_record(&format!("asset-{asset}"), GROUPS[asset % GROUPS.len()]);
    broker.produce(MAP, &(0..ASSETS).map(entry).collect::<Vec<_>>())?;
    Ok(broker)
}

async fn all_derived(broker: &Broker) -> Result<()> {
    let ends = broker.ends(SOURCE)?;
    wait::until("everything to be derived", LIMIT, async || {
        // Kafka does not tell while a transaction that a frozen member left behind is open.
        let committed = broker.committed(GROUP, SOURCE);
        Ok(committed.is_ok_and(|committed| committed == ends))
    })
    .await
}

/// Compares what stands in the groups' topics with how many events each asset has sent.
fn each_once_in_order(
    broker: &Broker,
    groups: &[&str],
    sent: &BTreeMap<String, u64>,
) -> Result<()> {
    let received = read_committed(broker, groups)?;
    for (asset, count) in sent {
        let expected: Vec<u64> = (0..*count).collect();
        let found = received.get(asset).map_or(&[][..], Vec::as_slice);
        ensure!(found == expected, "{asset}: {}", differences(found, *count));
    }
    ensure!(
        received.len() == sent.len(),
        "events of assets without group"
    );
    Ok(())
}

/// What can go on no more has to end, so that it is started again, although it is still a member of the group.
#[tokio::test(flavor = "multi_thread")]
async fn one_whose_name_another_has_taken_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = broker_with_assets(folder.path()).await?;
    let mut first = Member::start(&broker, "d1", folder.path()).await?;
    let load = Load::start(&broker);
    let heir = Member::start(&broker, "d1", folder.path()).await?;
    let ended = first.process.wait(LIMIT).await?;
    ensure!(!ended.success(), "it ended as if all were well");
    load.stop()?;
    drop(heir);
    Ok(())
}

/// A member reads on for a moment what another is to have; when it is stopped then, nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stopped_while_it_hands_over_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = broker_with_assets(folder.path()).await?;
    let mut one = Member::start(&broker, "d1", folder.path()).await?;
    let load = Load::start(&broker);
    sleep(Duration::from_secs(1)).await;
    let stopped = async {
        wait::until("the first to give partitions away", LIMIT, async || {
            Ok(one.process.log().contains("Revoke("))
        })
        .await?;
        one.process.terminate(GRACE).await
    };
    let (other, stopped) = tokio::join!(Member::start(&broker, "d2", folder.path()), stopped);
    ensure!(stopped?.success(), "it did not end well");
    sleep(Duration::from_secs(1)).await;
    all_is_there_and_it_lives(&broker, load, &mut other?).await
}

/// What is wrong with an asset's events, in a few words.
fn differences(found: &[u64], count: u64) -> String {
    let seen: BTreeSet<u64> = found.iter().copied().collect();
    let missing = count - u64::try_from(seen.len()).unwrap_or(count);
    let twice = found.len() - seen.len();
    format!(
        "of {count} events {missing} are missing and {twice} there twice, ordered: {}",
        found.is_sorted()
    )
}

fn topic(group: &str) -> String {
    group.parse::<GroupName>().expect("a group's name").topic()
}

fn event(asset: &str, sequence: u64) -> Record {
    let partition = asset.bytes().map(i32::from).sum::<i32>() % PARTITIONS;
    Record {
        key: Some(asset.into()),
        value: Some(
            format!(r#"{{"ID":"n","VALUE":{sequence},"TAG":"Count","TYPE":"Samples"}}"#).into(),
        ),
        partition,
    }
}

/// One `forwarder derive`.
struct Member {
    process: Process,
}

impl Member {
    async fn start(broker: &Broker, name: &str, folder: &Path) -> Result<Self> {
        Self::start_with(broker, name, &[], folder).await
    }

    async fn start_with(
        broker: &Broker,
        name: &str,
        further: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Self> {
        let mut settings = vec![("KAFKA_GROUP", GROUP)];
        settings.extend(further);
        let process = engine::start(broker, name, &settings, folder).await?;
        Ok(Self { process })
    }
}

/// Events of all assets, numbered by asset, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<BTreeMap<String, u64>>>,
}

impl Load {
    fn start(broker: &Broker) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (broker, stopped) = (broker.twin(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut sequence = 0;
            while !stopped.load(Ordering::Relaxed) {
                let round = sequence..sequence + 5;
                let events: Vec<Record> = round
                    .flat_map(|n| (0..ASSETS).map(move |asset| event(&format!("asset-{asset}"), n)))
                    .collect();
                broker.produce(SOURCE, &events)?;
                sequence += 5;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok((0..ASSETS)
                .map(|asset| (format!("asset-{asset}"), sequence))
                .collect())
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the load broke down")?
    }
}

/// The numbers of each asset's events in its group's topic, as a reader of committed records finds them.
fn read_committed(broker: &Broker, groups: &[&str]) -> Result<BTreeMap<String, Vec<u64>>> {
    let consumer: BaseConsumer = broker
        .settings()
        .client_config()?
        .set("group.id", "reader")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut list = TopicPartitionList::new();
    for group in groups {
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&topic(group), partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let (mut open, mut received) = (list.count(), BTreeMap::<String, Vec<u64>>::new());
    while open > 0 {
        match consumer
            .poll(LIMIT)
            .context("neither a record nor an end")?
        {
            Ok(record) => {
                let asset = String::from_utf8(record.key().context("no key")?.to_vec())?;
                let value: serde_json::Value =
                    serde_json::from_slice(record.payload().context("no value")?)?;
                let sequence = value["VALUE"].as_u64().context("no number")?;
                received.entry(asset).or_default().push(sequence);
            }
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(received)
}
