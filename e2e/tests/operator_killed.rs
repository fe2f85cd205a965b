//! `kill -9` of the operator, and its return, while everything it has put up is at work.

use std::time::Duration;

use anyhow::ensure;
use ofa_e2e::load::Pace;
use ofa_e2e::operator::{Operator, pool, shard};
use ofa_e2e::report;
use ofa_e2e::scene::{say, scenario};
use ofa_e2e::serving::Serving;
use ofa_e2e::watch::Follower;
use tokio::time::sleep;

/// No event needs the operator: nothing stops, nothing is restarted, nobody is even disconnected.
#[tokio::test(flavor = "multi_thread")]
async fn the_data_plane_does_not_notice() {
    scenario("operator-killed", async |scene| {
        let resources = [
            shard("line-1"),
            shard("line-2"),
            pool(scene, scene.broker()),
        ];
        let mut operator = Operator::start(scene.folder(), &resources)?;
        operator.wait_settled().await?;
        let router = Serving::router_of_pool(
            &scene.broker().address(),
            "factory.pool",
            None,
            scene.folder(),
        )
        .await?;
        let first = Follower::start(&router.url(), "line-1", "follower-1").await?;
        let second = Follower::start(&router.url(), "line-2", "follower-2").await?;
        let before = operator.processes()?;
        ensure!(
            before.len() == 6,
            "four nodes and two forwarders were to run: {before:?}"
        );

        let load = scene.load(Pace::default())?;
        sleep(Duration::from_secs(1)).await;
        operator.kill()?;
        sleep(Duration::from_secs(2)).await;
        operator.run()?;
        sleep(Duration::from_secs(2)).await;
        operator.wait_settled().await?;
        let after = operator.processes()?;
        ensure!(
            after == before,
            "the new operator has restarted something: {before:?}, then {after:?}"
        );

        let expected = scene.settle(load).await?;
        sleep(Duration::from_millis(500)).await;
        let lists = [&first, &second].map(|it| (it.shard().to_owned(), it.items()));
        let verdict = report::of_items(&expected, &lists);
        say(&format!("scenario operator-killed: {verdict}"));
        verdict.must_be_perfect()?;
        operator.stop().await
    })
    .await;
}
