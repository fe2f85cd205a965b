//! `kill -9` of a forwarder under load.

use ofa_e2e::load::Pace;
use ofa_e2e::scene::scenario;
use ofa_e2e::watch::Recorder;
use std::time::Duration;
use tokio::time::sleep;

/// Two forwarders share the partitions; one is killed and comes back, then the other is killed for good. What a killed
/// one had published and not committed is published again by whoever takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_forwarder_loses_and_reorders_nothing() {
    scenario("forwarder-killed", async |scene| {
        let shards = scene.shards(2, 2).await?;
        let first = Recorder::start(&shards[0].nodes()[0]).await?;
        let second = Recorder::start(&shards[1].nodes()[1]).await?;
        let one = scene.forwarder("f1", &shards).await?;
        let other = scene.forwarder("f2", &shards).await?;
        let load = scene.load(Pace::default())?;
        sleep(Duration::from_secs(2)).await;

        let settings = one.settings().clone();
        one.kill()?;
        sleep(Duration::from_secs(1)).await;
        let mut one = scene.start(settings)?;
        one.wait_ready().await?;
        sleep(Duration::from_secs(1)).await;
        other.kill()?;
        sleep(Duration::from_secs(2)).await;

        let expected = scene.settle(load).await?;
        scene
            .verdict(&expected, &[&first, &second])
            .await
            .must_be_perfect()
    })
    .await;
}
