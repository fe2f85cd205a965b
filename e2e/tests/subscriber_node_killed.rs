//! `kill -9` of the node that a subscriber of the client library is connected to.

use std::time::Duration;

use anyhow::ensure;
use ofa_client::Item;
use ofa_e2e::forwarder::Settings;
use ofa_e2e::load::Pace;
use ofa_e2e::report;
use ofa_e2e::scene::{say, scenario};
use ofa_e2e::serving::Serving;
use ofa_e2e::watch::Follower;
use tokio::time::sleep;

/// Core NATS keeps nothing for a subscriber that is away. It changes nodes by itself, and every single event that it
/// missed lies within a gap that it announced.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscriber_misses_is_announced() {
    scenario("subscriber-node-killed", async |scene| {
        let mut shards = scene.shards(1, 2).await?;
        let router = Serving::router(&Settings::urls_of(&shards), None, scene.folder()).await?;
        let follower = Follower::start(&router.url(), shards[0].name(), "follower").await?;
        shards[0].node_of_client("follower").await?;
        let _forwarder = scene.forwarder("f1", &shards).await?;
        let load = scene.load(Pace::default())?;
        for _ in 0..3 {
            sleep(Duration::from_secs(1)).await;
            let node = shards[0].node_of_client("follower").await?;
            shards[0].kill(node)?;
            sleep(Duration::from_secs(1)).await;
            shards[0].restart(node).await?;
        }
        // Each asset's next event tells what was missed before it.
        sleep(Duration::from_secs(2)).await;

        let expected = scene.settle(load).await?;
        sleep(Duration::from_secs(1)).await;
        let items = follower.items();
        let count = |wanted: fn(&Item) -> bool| items.iter().filter(|item| wanted(item)).count();
        let reconnects = count(|item| matches!(item, Item::Reconnected { .. }));
        let gaps = count(|item| matches!(item, Item::Gap(_)));
        let verdict = report::of_items(&expected, &[(follower.shard().to_owned(), items)]);
        say(&format!("{reconnects} reconnects, {gaps} gaps; {verdict}"));
        ensure!(
            reconnects >= 3,
            "the subscriber was to lose its node three times"
        );
        verdict.must_be_honest()
    })
    .await;
}
