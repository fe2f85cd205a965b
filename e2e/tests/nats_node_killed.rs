//! `kill -9` of the node that a forwarder publishes to.

use std::time::Duration;

use anyhow::ensure;
use ofa_e2e::load::Pace;
use ofa_e2e::scene::{say, scenario};
use ofa_e2e::watch::Recorder;
use ofa_e2e::{report, wait};
use tokio::time::sleep;

/// Whoever listens on the surviving node misses nothing: what the dead node had not passed on is published again.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_of_the_surviving_node_misses_nothing() {
    scenario("nats-node-killed", async |scene| {
        let mut shards = scene.shards(1, 2).await?;
        let forwarder = scene.forwarder("f1", &shards).await?;
        let target = shards[0].published_to(forwarder.member()).await?;
        let survivor = Recorder::start(&shards[0].nodes()[1 - target]).await?;
        let load = scene.load(Pace::default())?;
        // The first time it is published to; when it is back, the forwarder publishes to either and the other witnesses.
        for _ in 0..2 {
            sleep(Duration::from_millis(1500)).await;
            shards[0].kill(target)?;
            sleep(Duration::from_millis(1500)).await;
            shards[0].restart(target).await?;
            wait::until("a second witness", Duration::from_secs(15), async || {
                Ok(forwarder.metric("asset_forwarder_witness_mode", "").await? == 2.0)
            })
            .await?;
        }
        let expected = scene.settle(load).await?;
        ensure!(survivor.is_unbroken(), "the recorder lost its connection");
        scene
            .verdict(&expected, &[&survivor])
            .await
            .must_be_perfect()
    })
    .await;
}

/// The node and the forwarder die in the same moment, so nothing is sent again: what is committed must have reached
/// the surviving node all the same, since nobody would ever send it again. Afterwards everything arrives in the end.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_has_reached_a_second_node() {
    scenario("node-and-forwarder-killed", async |scene| {
        let mut shards = scene.shards(1, 2).await?;
        let forwarder = scene.forwarder("f1", &shards).await?;
        let settings = forwarder.settings().clone();
        let target = shards[0].published_to(forwarder.member()).await?;
        let survivor = Recorder::start(&shards[0].nodes()[1 - target]).await?;
        let load = scene.load(Pace {
            assets: 200,
            rate: 10_000,
        })?;
        sleep(Duration::from_secs(3)).await;
        shards[0].kill(target)?;
        forwarder.kill()?;
        sleep(Duration::from_secs(1)).await;

        let committed = scene.committed()?;
        let confirmed = scene.broker().expected(scene.topic(), &committed)?;
        let verdict = report::of_records(&confirmed, &scene.records(&[&survivor]).await);
        say(&format!("up to the committed position: {verdict}"));
        verdict.must_be_perfect()?;

        let mut again = scene.start(settings)?;
        again.wait_ready().await?;
        let expected = scene.settle(load).await?;
        ensure!(survivor.is_unbroken(), "the recorder lost its connection");
        scene
            .verdict(&expected, &[&survivor])
            .await
            .must_be_perfect()
    })
    .await;
}

/// That the test above can fail: here the forwarder knows one node only, so it takes that node's own word. The other
/// node does not hear of what is published, and what is committed dies with the first.
#[tokio::test(flavor = "multi_thread")]
async fn one_nodes_word_would_not_do() {
    scenario("one-witness", async |scene| {
        let mut shards = scene.shards(1, 2).await?;
        let mut settings = scene.settings("f1", &shards);
        settings.shards = vec![("C1".to_owned(), shards[0].nodes()[0].url())];
        let mut forwarder = scene.start(settings)?;
        forwarder.wait_ready().await?;
        let survivor = Recorder::start(&shards[0].nodes()[1]).await?;
        shards[0].freeze(1)?;
        // More than fits into the buffers of the connection between the nodes.
        let load = scene.load(Pace {
            assets: 200,
            rate: 15_000,
        })?;
        sleep(Duration::from_secs(5)).await;
        shards[0].kill(0)?;
        forwarder.kill()?;
        shards[0].thaw(1)?;
        load.stop()?;

        let confirmed = scene
            .broker()
            .expected(scene.topic(), &scene.committed()?)?;
        let verdict = scene.verdict(&confirmed, &[&survivor]).await;
        ensure!(
            verdict.after.lost > 0,
            "nothing was lost, so this proves nothing"
        );
        ensure!(verdict.must_be_perfect().is_err(), "a loss goes unnoticed");
        Ok(())
    })
    .await;
}
