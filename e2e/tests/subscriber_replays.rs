//! A subscriber whose node is killed again and again, with a replay service: it has everything in the end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use ofa_client::{Client, Item, SubscribeOptions};
use ofa_e2e::complete::{Recovery, Told, recovery};
use ofa_e2e::forwarder::Settings;
use ofa_e2e::load::Pace;
use ofa_e2e::nats::Shard;
use ofa_e2e::report;
use ofa_e2e::scene::{Scene, say, scenario};
use ofa_e2e::serving::Serving;
use ofa_e2e::wait;
use ofa_e2e::watch::Follower;
use tokio::time::sleep;

/// How often the node is killed; `OFA_REPLAY_KILLS` sets more.
const KILLS: usize = 5;

/// How long a subscriber may take to have everything in the end, on a machine that is busy with other things.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(30);

/// Enough events that every millisecond without connection misses some.
const PACE: Pace = Pace {
    assets: 500,
    rate: 5_000,
};

struct Stage {
    shards: Vec<Shard>,
    replay: Serving,
    router: Serving,
}

async fn stage(scene: &Scene) -> Result<Stage> {
    let shards = scene.shards(1, 2).await?;
    let urls = Settings::urls_of(&shards);
    let broker = scene.broker().address();
    let replay = Serving::replay(&broker, scene.topic(), &urls, scene.folder()).await?;
    let router = Serving::router(&urls, Some(&replay), scene.folder()).await?;
    Ok(Stage {
        shards,
        replay,
        router,
    })
}

/// Everything was received, in order, once, and nothing had to be announced as missing.
async fn must_be_complete(
    expected: &ofa_client::audit::Expected,
    follower: &Follower,
) -> Result<()> {
    let list = || [(follower.shard().to_owned(), follower.items())];
    let complete = async || {
        let verdict = report::of_items(expected, &list());
        Ok(verdict.after.lost == 0)
    };
    // The verdict below says what is missing.
    let _ = wait::until("everything to be received", COMPLETE_TIMEOUT, complete).await;
    let verdict = report::of_items(expected, &list());
    let items = follower.items();
    let gaps: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Gap(gap) => Some(gap.to_string()),
            _ => None,
        })
        .collect();
    say(&format!("{} gaps; {verdict}", gaps.len()));
    verdict.must_be_perfect()?;
    ensure!(gaps.is_empty(), "announced as missing: {}", gaps.join("; "));
    Ok(())
}

/// Tells how long after each kill all was there that it had the subscriber miss.
fn tell_recoveries(follower: &Follower, kills: &[Timestamp]) -> Result<()> {
    let told = Told::of(&follower.yielded());
    let of_kill = |(index, at): (usize, &Timestamp)| {
        let next = kills.get(index + 1).copied();
        recovery(&told, *at, next).context("a connection that did not come back")
    };
    let recoveries: Vec<Recovery> = kills
        .iter()
        .enumerate()
        .map(of_kill)
        .collect::<Result<_>>()?;
    let mut times: Vec<Duration> = recoveries.iter().map(|it| it.complete).collect();
    times.sort_unstable();
    let late_after: usize = recoveries.iter().map(|it| it.late_after).sum();
    say(&format!(
        "after a kill complete within (s): median {:.3}, worst {:.3}; late when all was there again: {late_after} events",
        times[times.len() / 2].as_secs_f64(),
        times[times.len() - 1].as_secs_f64(),
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_however_often_the_node_is_killed() {
    scenario("subscriber-replays", async |scene| {
        let Stage {
            mut shards,
            replay,
            router,
        } = stage(scene).await?;
        let _forwarder = scene.forwarder("f1", &shards).await?;
        let follower = Follower::start(&router.url(), shards[0].name(), "follower").await?;
        shards[0].node_of_client("follower").await?;
        let kills = std::env::var("OFA_REPLAY_KILLS").ok();
        let kills = kills.and_then(|it| it.parse().ok()).unwrap_or(KILLS);
        let load = scene.load(PACE)?;
        let mut killed = Vec::new();
        for _ in 0..kills {
            sleep(Duration::from_secs(1)).await;
            let node = shards[0].node_of_client("follower").await?;
            killed.push(Timestamp::now());
            shards[0].kill(node)?;
            sleep(Duration::from_millis(1500)).await;
            shards[0].restart(node).await?;
        }
        sleep(Duration::from_secs(1)).await;
        let expected = scene.settle(load).await?;
        must_be_complete(&expected, &follower).await?;
        let items = follower.items();
        let reconnects = items
            .iter()
            .filter(|item| matches!(item, Item::Reconnected { .. }));
        ensure!(
            reconnects.count() >= kills,
            "the node was to be lost {kills} times"
        );
        let from_memory = replay
            .metric("serving_replayed_events_total", "Memory")
            .await?;
        ensure!(
            from_memory > 0.0,
            "nothing was sent again, so nothing was tested"
        );
        say(&format!("sent again: {from_memory}"));
        tell_recoveries(&follower, &killed)
    })
    .await;
}

/// No event follows what was missed, so none can tell: the client asks.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_quiet_asset_sent_meanwhile_arrives_without_a_further_event() {
    scenario("subscriber-replays-quiet", async |scene| {
        let Stage {
            mut shards,
            replay: _replay,
            router,
        } = stage(scene).await?;
        let _forwarder = scene.forwarder("f1", &shards).await?;
        let follower = Follower::start(&router.url(), shards[0].name(), "follower").await?;
        let node = shards[0].node_of_client("follower").await?;
        let load = scene.load(PACE)?;
        sleep(Duration::from_secs(1)).await;
        shards[0].kill(node)?;
        // Ends while the subscriber looks for another node, or soon after.
        let expected = scene.settle(load).await?;
        must_be_complete(&expected, &follower).await
    })
    .await;
}

/// The service is killed with the node: what is missed waits until it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_service_that_is_killed_too_costs_time_and_no_events() {
    scenario("subscriber-replays-service-killed", async |scene| {
        let Stage {
            mut shards,
            mut replay,
            router,
        } = stage(scene).await?;
        let _forwarder = scene.forwarder("f1", &shards).await?;
        let follower = Follower::start(&router.url(), shards[0].name(), "follower").await?;
        let node = shards[0].node_of_client("follower").await?;
        let load = scene.load(PACE)?;
        sleep(Duration::from_secs(1)).await;
        replay.kill()?;
        shards[0].kill(node)?;
        sleep(Duration::from_secs(1)).await;
        replay.run()?;
        replay.wait_ready().await?;
        sleep(Duration::from_secs(1)).await;
        let expected = scene.settle(load).await?;
        must_be_complete(&expected, &follower).await
    })
    .await;
}

/// More comes meanwhile than may wait for it: the rest is asked for when the consumer goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_takes_nothing_for_a_while_misses_nothing() {
    /// Several times as many as wait in this process.
    const EVENTS: u64 = 60_000;
    scenario("subscriber-replays-slow-consumer", async |scene| {
        let Stage {
            shards,
            replay,
            router,
        } = stage(scene).await?;
        let _forwarder = scene.forwarder("f1", &shards).await?;
        let client = Client::new(&router.url())?;
        let options = SubscribeOptions {
            queue: 16,
            ..SubscribeOptions::default()
        };
        let mut subscription = client.subscribe_all(shards[0].name(), options).await?;
        // Behind the questions that are asked because the subscription is new.
        sleep(Duration::from_secs(2)).await;
        let load = scene.load(Pace {
            assets: 500,
            rate: 15_000,
        })?;
        let enough = async || Ok(load.written() > EVENTS);
        wait::until("enough to be written", COMPLETE_TIMEOUT, enough).await?;
        let expected = scene.settle(load).await?;

        let (mut items, deadline) = (Vec::new(), tokio::time::Instant::now() + COMPLETE_TIMEOUT);
        let verdict = loop {
            let next = tokio::time::timeout(Duration::from_secs(2), subscription.next_item());
            match next.await {
                Ok(item) => items.push(item.context("the subscription has ended")?),
                Err(_) => {
                    let list = [(shards[0].name().to_owned(), items.clone())];
                    let verdict = report::of_items(&expected, &list);
                    if verdict.after.lost == 0 || tokio::time::Instant::now() > deadline {
                        break verdict;
                    }
                }
            }
        };
        verdict.must_be_perfect()?;
        let gaps = items.iter().filter(|item| matches!(item, Item::Gap(_)));
        ensure!(gaps.count() == 0, "a gap was told");
        let metric = "serving_replayed_events_total";
        let sent_again =
            replay.metric(metric, "Memory").await? + replay.metric(metric, "Kafka").await?;
        ensure!(
            sent_again > 0.0,
            "the buffer held all, so nothing was tested"
        );
        say(&format!("sent again: {sent_again}"));
        Ok(())
    })
    .await;
}
