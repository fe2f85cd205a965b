//! Under load, with a client that watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ofa_e2e::engine::register;
use ofa_e2e::kafka::{Broker, Record};
use ofa_e2e::sse::{EventSource, Received};
use ofa_e2e::{engine, wait};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rustix::process::Signal;

use crate::scene::{
    self, GROUPS, LIMIT, MOVES, QUIET, SOURCE, event, numbers, serving, topic, wait_for,
};

/// One that moves too, to a group where nobody sends, and sends only before and after.
const SLEEPS: &str = "sleeper";

/// Longer than a service waits for what a client says it has seen.
const QUIET_FOR: Duration = Duration::from_secs(6);

/// How often each asset sends.
const EVERY: Duration = Duration::from_millis(8);

/// How long the engine is frozen: longer than the router and the client need, and shorter than the group waits for a member.
const FROZEN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_that_changes_its_group_is_followed_without_a_gap() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path()).await?;
    scene::create_topics(&broker).await?;
    register(&broker, SLEEPS, "Weld")?;
    let mut engine = engine::start(&broker, "engine", &[], folder.path()).await?;
    let load = Load::start(&broker)?;
    broker.produce(SOURCE, &[event(&format!("stays-{QUIET}"), 0, 0)])?;
    scene::topics_to_be_there(&broker).await?;
    let (router, _services) = serving(&broker, &[], folder.path()).await?;
    let client = EventSource::start(&[router.url()], &[MOVES])?;
    let quiet = EventSource::start(&[router.url()], &["stays-Weld"])?;
    let sleeper = EventSource::start(&[router.url()], &[SLEEPS])?;
    wait_for(&client, 1).await?;
    wait::until("the sleeper's client to listen", LIMIT, async || {
        Ok(!sleeper.received().id.is_empty())
    })
    .await?;
    broker.produce(SOURCE, &[event(SLEEPS, 0, 0)])?;
    wait_for(&sleeper, 1).await?;

    // There and back, twice, and at another point of the engine's transactions each time.
    for (round, group) in (1..).zip(["Paint", "Weld", "Paint", "Weld"]) {
        let before = client.received().events.len();
        if round % 2 == 0 {
            // The engine hears of it later than the router does, with events in its hands.
            engine.signal(Signal::STOP)?;
        }
        register(&broker, MOVES, group)?;
        let sleeps_in = if group == "Paint" { QUIET } else { group };
        register(&broker, SLEEPS, sleeps_in)?;
        tokio::time::sleep(FROZEN).await;
        engine.signal(Signal::CONT)?;
        let id = topic(group);
        wait::until(
            "the client to be at the new group alone",
            LIMIT,
            async || {
                let received = client.received();
                if let Some(status) = engine.ended()? {
                    anyhow::bail!("the engine has ended ({status}): {}", engine.tail(9));
                }
                Ok(received.id.starts_with(&id) && !received.id.contains('|'))
            },
        )
        .await
        .with_context(|| {
            let Received {
                id, gaps, connects, ..
            } = client.received();
            format!("round {round}: at {id} after {connects} connections, gaps: {gaps:?}")
        })?;
        wait_for(&client, before + 50).await?;
        tokio::time::sleep(Duration::from_millis(137 * round)).await;
        if sleeps_in == QUIET {
            tokio::time::sleep(QUIET_FOR).await;
        }
    }

    let written = load.stop().await?;
    broker.produce(SOURCE, &[event(SLEEPS, 1, 0)])?;
    wait_for(&sleeper, 2).await?;
    let slept = sleeper.received();
    ensure!(slept.gaps.is_empty(), "gaps: {:?}", slept.gaps);
    let slept = numbers(&slept)?;
    ensure!(slept == [0, 1], "the sleeper's events: {slept:?}");
    let last = format!(r#""VALUE":{}}}"#, written - 1);
    wait::until("the last event", LIMIT, async || {
        let received = client.received();
        Ok(received
            .events
            .last()
            .is_some_and(|event| event.contains(&last)))
    })
    .await?;
    let received = client.received();
    let numbers = numbers(&received)?;
    let first = numbers[0];
    let expected: Vec<u64> = (first..written).collect();
    ensure!(received.gaps.is_empty(), "gaps: {:?}", received.gaps);
    ensure!(numbers == expected, "{}", differences(&numbers, &expected));
    ensure!(received.connects >= 5, "it has not followed its asset");
    ensure!(
        quiet.received().connects == 1,
        "another asset's client was sent away"
    );
    Ok(())
}

/// What is wrong, in a few words.
fn differences(found: &[u64], expected: &[u64]) -> String {
    let missing: Vec<_> = expected.iter().filter(|it| !found.contains(it)).collect();
    let steps = found.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    let steps: Vec<_> = steps.take(10).collect();
    format!(
        "of {} events {} are missing, there are {}; steps: {steps:?}",
        expected.len(),
        missing.len(),
        found.len()
    )
}

/// Events of all assets, numbered, until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Load {
    fn start(broker: &Broker) -> Result<Self> {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let producer: ThreadedProducer<DefaultProducerContext> =
            broker.producer_config()?.create()?;
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                for record in events(count.fetch_add(1, Ordering::Relaxed)) {
                    let mut out = BaseRecord::<[u8], [u8]>::to(SOURCE).partition(record.partition);
                    (out.key, out.payload) = (record.key.as_deref(), record.value.as_deref());
                    producer.send(out).map_err(|(error, _)| error)?;
                }
                tokio::time::sleep(EVERY).await;
            }
            producer.flush(LIMIT)?;
            Ok(())
        });
        Ok(Self {
            stop,
            written,
            task,
        })
    }

    /// How many have been written of each asset.
    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.written.load(Ordering::Relaxed))
    }
}

/// All assets' events of one number. Every third time one asset more sends, so that the offsets of the two topics drift
/// apart.
fn events(number: u64) -> Vec<Record> {
    let mut events = vec![event(MOVES, number, 0), event("stays-Paint", number, 1)];
    let stays = GROUPS.map(|group| event(&format!("stays-{group}"), number, 0));
    events.extend(
        stays
            .into_iter()
            .take(1 + usize::from(number.is_multiple_of(3))),
    );
    events
}
