//! What other shards notice while one does not answer. That it gets its own backlog, complete and in order, is a scenario of
//! the tests (`shard_away`); here its commit is waited for.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::timetable::{Generator, Timetable, arrivals, latencies, percentile};
use super::{forwarder_settings, print};
use crate::forwarder::Forwarder;
use crate::kafka::Broker;
use crate::nats::Shard;
use crate::watch::Recorder;

const TOPIC: &str = "isolation";

/// Events in each millisecond.
const EVENTS_A_TICK: u64 = 20;

/// Left out at the beginning, while connections and caches warm up.
const WARM_UP: Duration = Duration::from_secs(3);

/// What the others are measured over before the outage.
const BEFORE: Duration = Duration::from_secs(20);

/// How long one shard does not answer.
const OUTAGE: Duration = Duration::from_secs(60);

/// How long the load goes on when the shard is back.
const AFTER: Duration = Duration::from_secs(10);

/// The shard may take this long to have got all of its minute, on a machine that does all the rest too.
const CATCH_UP: Duration = Duration::from_secs(180);

/// Measures with two shards of one node, one of which is stopped in between.
pub(super) async fn measure(broker: &Broker, folder: &Path) -> Result<()> {
    broker.create_topic(TOPIC, super::input::PARTITIONS).await?;
    let away = Shard::start("I1", 1, folder).await?;
    let healthy = Shard::start("I2", 1, folder).await?;
    let of_healthy = Recorder::start(&healthy.nodes()[0]).await?;
    let shards = [away, healthy];
    let settings = forwarder_settings("isolation", TOPIC, broker, &shards);
    let mut forwarder = Forwarder::start(settings, folder)?;
    forwarder.wait_ready().await?;
    let length = WARM_UP + BEFORE + OUTAGE + AFTER;
    let generator = Generator::start(broker, TOPIC, Timetable::all_watched(EVENTS_A_TICK), length)?;
    tokio::time::sleep(WARM_UP).await;
    let before = Timestamp::now();
    tokio::time::sleep(BEFORE).await;
    let during = Timestamp::now();
    shards[0].freeze(0)?;
    tokio::time::sleep(OUTAGE).await;
    shards[0].thaw(0)?;
    generator.finish()?;
    let settings = forwarder.settings();
    broker
        .everything_committed(&settings.group, TOPIC, CATCH_UP)
        .await?;
    forwarder.stop().await?;

    let others = arrivals(&[&of_healthy])?;
    let before = latencies(others.iter(), before, BEFORE)?;
    let during = latencies(others.iter(), during, OUTAGE)?;
    let rate = |latencies: &[f64], over: Duration| {
        u32::try_from(latencies.len()).map_or(f64::INFINITY, f64::from) / over.as_secs_f64()
    };
    let (rate_before, rate_during) = (rate(&before, BEFORE), rate(&during, OUTAGE));
    let (p99_before, p99_during) = (percentile(&before, 990), percentile(&during, 990));
    print("isolation-before-p99", p99_before, "ms", 1.0)?;
    print(
        "isolation-during-p99",
        p99_during,
        "ms",
        p99_during / p99_before,
    )?;
    print(
        "isolation-during-rate",
        rate_during,
        "msg/s",
        rate_during / rate_before,
    )
}
