//! `kill -9` of the Kafka broker, and its return.

use std::time::Duration;

use ofa_e2e::load::Pace;
use ofa_e2e::scene::scenario_with_own_broker;
use ofa_e2e::watch::Recorder;
use tokio::time::sleep;

/// Forwarders and producers wait for the broker and go on where they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_broker_loses_and_reorders_nothing() {
    scenario_with_own_broker("broker-restarted", async |scene, mut broker| {
        let shards = scene.shards(2, 2).await?;
        let first = Recorder::start(&shards[0].nodes()[0]).await?;
        let second = Recorder::start(&shards[1].nodes()[0]).await?;
        let _one = scene.forwarder("f1", &shards).await?;
        let _other = scene.forwarder("f2", &shards).await?;
        let load = scene.load(Pace::default())?;
        sleep(Duration::from_secs(2)).await;
        broker.kill()?;
        sleep(Duration::from_secs(2)).await;
        broker.run().await?;
        sleep(Duration::from_secs(3)).await;

        let expected = scene.settle(load).await?;
        scene
            .verdict(&expected, &[&first, &second])
            .await
            .must_be_perfect()
    })
    .await;
}
