//! A whole shard is away: the others do not wait for it.

use std::time::Duration;

use anyhow::ensure;
use ofa_e2e::load::Pace;
use ofa_e2e::report;
use ofa_e2e::scene::{say, scenario};
use ofa_e2e::watch::Recorder;
use tokio::time::sleep;

/// Both nodes of a shard freeze under load. The other shard gets its events as before, also over a restart of the
/// forwarder in the middle, and nothing twice; when the shard wakes it gets everything it missed, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_away_delays_its_own_assets_only() {
    scenario("shard-away", async |scene| {
        let shards = scene.shards(2, 2).await?;
        let healthy = Recorder::start(&shards[0].nodes()[0]).await?;
        let away = Recorder::start(&shards[1].nodes()[0]).await?;
        let forwarder = scene.forwarder("f1", &shards).await?;
        let load = scene.load(Pace::default())?;
        sleep(Duration::from_secs(1)).await;
        shards[1].freeze(0)?;
        shards[1].freeze(1)?;
        // The forwarder has to notice first.
        sleep(Duration::from_secs(2)).await;

        let before = (healthy.count(), load.written());
        sleep(Duration::from_secs(2)).await;
        let settings = forwarder.settings().clone();
        forwarder.stop().await?;
        let mut forwarder = scene.start(settings)?;
        forwarder.wait_ready().await?;
        sleep(Duration::from_secs(2)).await;
        let (received, written) = (healthy.count() - before.0, load.written() - before.1);
        say(&format!(
            "while one shard is away the other receives {received} of {written} events written"
        ));
        // The ring gives it about half of the assets.
        ensure!(
            u64::try_from(received)? > written / 4,
            "{received} of {written} events only"
        );

        shards[1].thaw(0)?;
        shards[1].thaw(1)?;
        sleep(Duration::from_secs(2)).await;
        let expected = scene.settle(load).await?;
        ensure!(away.is_unbroken(), "the recorder lost its connection");
        scene
            .verdict(&expected, &[&healthy, &away])
            .await
            .must_be_perfect()?;
        let twice = report::of_records(&expected, &scene.records(&[&healthy]).await);
        ensure!(
            twice.duplicates_before == 0,
            "the healthy shard got {} events twice",
            twice.duplicates_before
        );
        Ok(())
    })
    .await;
}
