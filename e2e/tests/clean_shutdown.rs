//! SIGTERM and a new start.

use std::time::Duration;

use ofa_e2e::load::Pace;
use ofa_e2e::scene::scenario;
use ofa_e2e::watch::Recorder;
use tokio::time::sleep;

/// What was published is committed before the process ends, so the next one sends nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_sends_nothing_twice() {
    scenario("clean-shutdown", async |scene| {
        let shards = scene.shards(2, 2).await?;
        let first = Recorder::start(&shards[0].nodes()[0]).await?;
        let second = Recorder::start(&shards[1].nodes()[1]).await?;
        let load = scene.load(Pace::default())?;
        for _ in 0..3 {
            let forwarder = scene.forwarder("f1", &shards).await?;
            sleep(Duration::from_millis(1200)).await;
            forwarder.stop().await?;
        }
        let _last = scene.forwarder("f1", &shards).await?;

        let expected = scene.settle(load).await?;
        let verdict = scene.verdict(&expected, &[&first, &second]).await;
        verdict.must_leave_no_trace()
    })
    .await;
}
