//! How long events wait while partitions change hands: at a planned stop and start of a forwarder, and when one dies.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::timetable::{Arrival, Generator, Timetable, arrivals, latencies, percentile};
use super::{forwarder_settings, print};
use crate::forwarder::Forwarder;
use crate::kafka::Broker;
use crate::nats::Shard;
use crate::wait;
use crate::watch::Recorder;

const TOPIC: &str = "handover";

/// Events in each millisecond.
const EVENTS_A_TICK: u64 = 5;

/// Before anything happens, and what a planned change is given.
const CALM: Duration = Duration::from_secs(6);

/// What a crash is given: longer than the group's session time-out.
const AFTER_CRASH: Duration = Duration::from_secs(14);

/// How long a change may take to be seen in the metrics.
const CHANGE: Duration = Duration::from_secs(30);

/// Targets in ms: the longest wait of an event of a partition that moves.
const PLANNED_TARGET: f64 = 1_000.0;
const CRASH_TARGET: f64 = 8_000.0;

/// What was done when, and whose partitions it moved.
struct Change {
    name: &'static str,
    at: Timestamp,
    given: Duration,
    moved: BTreeSet<u32>,
    target: f64,
}

/// Measures with two forwarders on two shards of one node.
pub(super) async fn measure(broker: &Broker, folder: &Path) -> Result<()> {
    broker.create_topic(TOPIC, super::input::PARTITIONS).await?;
    let (mut shards, mut recorders) = (Vec::new(), Vec::new());
    for name in ["H1", "H2"] {
        let shard = Shard::start(name, 1, folder).await?;
        recorders.push(Recorder::start(&shard.nodes()[0]).await?);
        shards.push(shard);
    }
    let start =
        |member: &str| Forwarder::start(forwarder_settings(member, TOPIC, broker, &shards), folder);
    let stays = start("stays")?;
    let other = start("other")?;
    // A forwarder tells of partitions that have events.
    let length = CALM * 3 + AFTER_CRASH + CHANGE * 2;
    let generator = Generator::start(broker, TOPIC, Timetable::all_watched(EVENTS_A_TICK), length)?;
    let moved = share_of(&other).await?;
    let began = Timestamp::now();
    tokio::time::sleep(CALM).await;

    let mut changes = Vec::new();
    let mut note = |name, moved: &BTreeSet<u32>, at| {
        let (given, target) = match name {
            "crash" => (AFTER_CRASH, CRASH_TARGET),
            _ => (CALM, PLANNED_TARGET),
        };
        changes.push(Change {
            name,
            at,
            given,
            moved: moved.clone(),
            target,
        });
    };
    note("stop", &moved, Timestamp::now());
    other.stop().await?;
    tokio::time::sleep(CALM).await;
    let at = Timestamp::now();
    let other = start("other")?;
    let moved = share_of(&other).await?;
    note("start", &moved, at);
    tokio::time::sleep(CALM).await;
    note("crash", &moved, Timestamp::now());
    other.kill()?;
    let written = generator.finish()?;
    tokio::time::sleep(CALM).await;
    stays.stop().await?;

    let all = arrivals(&recorders.iter().collect::<Vec<_>>())?;
    anyhow::ensure!(
        all.len() as u64 == written,
        "{} of {written} events arrived",
        all.len()
    );
    report(&all, began, &changes)
}

fn report(all: &[Arrival], began: Timestamp, changes: &[Change]) -> Result<()> {
    let warm = began + jiff::SignedDuration::from_secs(2);
    let calm = latencies(all.iter(), warm, CALM - Duration::from_secs(2))?;
    let usual = percentile(&calm, 1000);
    print("handover-none-longest", usual, "ms", 1.0)?;
    for change in changes {
        let longest = |moves: bool| {
            let concerned = all
                .iter()
                .filter(|it| change.moved.contains(&it.partition) == moves);
            latencies(concerned, change.at, change.given).map(|all| percentile(&all, 1000))
        };
        let name = |what: &str| format!("handover-{}-{what}", change.name);
        let moved = longest(true)?;
        print(&name("moved"), moved, "ms", moved / change.target)?;
        let untouched = longest(false)?;
        print(&name("untouched"), untouched, "ms", untouched / usual)?;
    }
    Ok(())
}

/// Waits until a forwarder has half of the partitions, and tells which.
async fn share_of(forwarder: &Forwarder) -> Result<BTreeSet<u32>> {
    let half = usize::try_from(super::input::PARTITIONS)? / 2;
    wait::until("half of the partitions to be taken", CHANGE, async || {
        Ok(forwarder
            .partitions()
            .await
            .is_ok_and(|count| count == half))
    })
    .await?;
    let metrics = forwarder.metrics().await?;
    metrics
        .lines()
        .filter(|line| line.starts_with("asset_forwarder_committed_offset{"))
        .map(|line| {
            let (_, rest) = line.split_once("partition=\"").context("no partition")?;
            let (number, _) = rest.split_once('"').context("no partition")?;
            Ok(number.parse()?)
        })
        .collect()
}
