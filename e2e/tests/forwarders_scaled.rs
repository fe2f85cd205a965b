//! A forwarder added and removed under load.

use std::time::Duration;

use ofa_e2e::load::Pace;
use ofa_e2e::scene::{PARTITIONS, scenario};
use ofa_e2e::wait;
use ofa_e2e::watch::Recorder;
use tokio::time::sleep;

/// A rebalance with the forwarder's cooperation ends within this.
const REBALANCE: Duration = Duration::from_secs(15);

/// Partitions change hands after everything on its way is confirmed and committed: nothing is even sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_change_hands_without_a_trace() {
    scale(["classic", "classic"]).await;
}

/// The same where the broker shares the partitions out.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_the_broker_shares_out_change_hands_without_a_trace() {
    scale(["consumer", "consumer"]).await;
}

/// The same where the one that comes is a member by the classic protocol, as in a roll back to it.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_change_hands_between_members_of_both_protocols_without_a_trace() {
    scale(["consumer", "classic"]).await;
}

/// Begins with a forwarder of the first protocol, adds one of the second, and stops the first.
async fn scale([before, after]: [&str; 2]) {
    let name = format!("forwarders-scaled-{before}-{after}");
    scenario(&name, async |scene| {
        let shards = scene.shards(2, 2).await?;
        let first = Recorder::start(&shards[0].nodes()[0]).await?;
        let second = Recorder::start(&shards[1].nodes()[0]).await?;
        let start = async |member: &str, protocol: &str| {
            let mut settings = scene.settings(member, &shards);
            let variable = ("KAFKA_GROUP_PROTOCOL".to_owned(), protocol.to_owned());
            settings.variables.push(variable);
            let mut forwarder = scene.start(settings)?;
            forwarder.wait_ready().await?;
            anyhow::Ok(forwarder)
        };
        let one = start("f1", before).await?;
        let load = scene.load(Pace::default())?;
        sleep(Duration::from_secs(1)).await;

        let other = start("f2", after).await?;
        let half = usize::try_from(PARTITIONS)? / 2;
        wait::until(
            "both to have half of the partitions",
            REBALANCE,
            async || Ok(one.partitions().await? == half && other.partitions().await? == half),
        )
        .await?;
        sleep(Duration::from_secs(1)).await;
        one.stop().await?;
        wait::until("the other to have all partitions", REBALANCE, async || {
            Ok(other.partitions().await? == 2 * half)
        })
        .await?;
        sleep(Duration::from_secs(1)).await;

        let expected = scene.settle(load).await?;
        let verdict = scene.verdict(&expected, &[&first, &second]).await;
        verdict.must_leave_no_trace()
    })
    .await;
}

/// A forwarder reads on for a moment what another is to have; when it is stopped then, nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_forwarder_that_is_stopped_while_it_hands_over_ends() {
    scenario("forwarder-stopped-in-a-handover", async |scene| {
        let shards = scene.shards(2, 2).await?;
        let first = Recorder::start(&shards[0].nodes()[0]).await?;
        let second = Recorder::start(&shards[1].nodes()[0]).await?;
        let one = scene.forwarder("f1", &shards).await?;
        let load = scene.load(Pace::default())?;
        sleep(Duration::from_secs(1)).await;

        let rebalances = async || one.metric("asset_forwarder_rebalances_total", "").await;
        let before = rebalances().await?;
        let other = scene.start(scene.settings("f2", &shards))?;
        wait::until("the first to give partitions away", REBALANCE, async || {
            Ok(rebalances().await? > before)
        })
        .await?;
        one.stop().await?;
        let all = usize::try_from(PARTITIONS)?;
        wait::until("the other to have all partitions", REBALANCE, async || {
            Ok(other.partitions().await.is_ok_and(|count| count == all))
        })
        .await?;

        let expected = scene.settle(load).await?;
        let verdict = scene.verdict(&expected, &[&first, &second]).await;
        verdict.must_leave_no_trace()
    })
    .await;
}
