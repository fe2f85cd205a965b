//! SIGSTOP of a NATS node for 10 s: its connections stay open, and nothing comes.

use std::time::Duration;

use anyhow::ensure;
use ofa_e2e::load::Pace;
use ofa_e2e::report;
use ofa_e2e::scene::{Scene, say, scenario};
use ofa_e2e::watch::Recorder;
use tokio::time::sleep;

/// Longer than every timeout of the forwarder, and about as long as a node waits for its neighbours.
const FROZEN_FOR: Duration = Duration::from_secs(10);

/// The node published to freezes: the forwarder goes on with the other one, and what the frozen one still holds comes
/// late, when it was long delivered again. A client drops it by its cursor.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_published_to_may_freeze() {
    scenario("publishers-node-frozen", async |scene| {
        freeze(scene, true).await
    })
    .await;
}

/// The node that witnesses freezes: the forwarder notices that nothing is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_witnesses_may_freeze() {
    scenario("witness-node-frozen", async |scene| {
        freeze(scene, false).await
    })
    .await;
}

async fn freeze(scene: &Scene, published_to: bool) -> anyhow::Result<()> {
    let shards = scene.shards(1, 2).await?;
    let forwarder = scene.forwarder("f1", &shards).await?;
    let publisher = shards[0].published_to(forwarder.member()).await?;
    let frozen = if published_to {
        publisher
    } else {
        1 - publisher
    };
    let other = Recorder::start(&shards[0].nodes()[1 - frozen]).await?;
    let on_frozen = Recorder::start(&shards[0].nodes()[frozen]).await?;
    let load = scene.load(Pace::default())?;
    sleep(Duration::from_secs(1)).await;
    shards[0].freeze(frozen)?;
    sleep(FROZEN_FOR).await;

    // The assets of the shard must not wait for the frozen node to wake.
    let committed = scene.committed()?;
    let behind = report::distance(&committed, &scene.broker().ends(scene.topic())?);
    say(&format!(
        "{behind} events not yet committed when the node wakes"
    ));
    ensure!(
        behind < load.written() / 2,
        "{behind} of {} events wait for the frozen node",
        load.written()
    );

    shards[0].thaw(frozen)?;
    sleep(Duration::from_secs(2)).await;
    let expected = scene.settle(load).await?;
    ensure!(other.is_unbroken(), "the recorder lost its connection");
    scene
        .verdict(&expected, &[&other])
        .await
        .must_be_perfect()?;
    // Its subscribers may miss what the other node gave up passing on, but they are told, and nothing comes in a wrong order.
    let told = scene.verdict(&expected, &[&on_frozen]).await;
    if on_frozen.is_unbroken() {
        told.must_be_honest()?;
    }
    Ok(())
}
