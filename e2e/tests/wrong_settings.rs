//! Settings that cannot work: one message that says what to do.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use ofa_e2e::forwarder::Forwarder;
use ofa_e2e::load::Pace;
use ofa_e2e::scene::{scenario, scenario_with_own_broker};
use ofa_e2e::watch::Recorder;
use ofa_e2e::{http, ports, tools, wait};

/// How long a message may take: asking a broker that is not there takes its time.
const PATIENCE: Duration = Duration::from_secs(15);

async fn says(forwarder: &mut Forwarder, wanted: &[&str]) -> Result<()> {
    let what = format!("a message with {wanted:?}");
    wait::until(&what, PATIENCE, async || {
        let log = forwarder.process().log();
        Ok(log
            .lines()
            .any(|line| wanted.iter().all(|part| line.contains(part))))
    })
    .await
}

/// A broker may come later, so the forwarder waits, says so once in a while, and is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_broker_address_is_named() {
    scenario("wrong-broker", async |scene| {
        let shards = scene.shards(1, 1).await?;
        let nobody = ports::free()?;
        let mut settings = scene.settings("f1", &shards);
        settings.broker = nobody.to_string();
        let mut forwarder = scene.start(settings)?;
        says(&mut forwarder, &[&nobody.to_string(), "KAFKA_BROKER"]).await?;
        let (status, body) = http::get(forwarder.address(), "/ready").await?;
        ensure!(
            status == 503 && body.contains(&nobody.to_string()),
            "/ready answers {status}: {body}"
        );
        let (live, _) = http::get(forwarder.address(), "/live").await?;
        ensure!(live == 200, "/live answers {live}");
        let lines = forwarder.process().log().lines().count();
        ensure!(lines < 30, "{lines} lines in the log for one wrong address");
        forwarder.stop().await
    })
    .await;
}

/// The forwarder names the topic, and begins as soon as it is created.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_waited_for() {
    scenario("missing-topic", async |scene| {
        let shards = scene.shards(1, 1).await?;
        let recorder = Recorder::start(&shards[0].nodes()[0]).await?;
        let mut settings = scene.settings("f1", &shards);
        settings.topic = "not-created-yet".to_owned();
        let mut forwarder = scene.start(settings)?;
        says(&mut forwarder, &["not-created-yet", "KAFKA_TOPIC"]).await?;
        scene.broker().create_topic("not-created-yet", 1).await?;
        forwarder.wait_ready().await?;
        let load = ofa_e2e::load::Load::start(
            scene.broker(),
            "not-created-yet",
            Pace {
                assets: 5,
                rate: 100,
            },
        )?;
        wait::until("an event", PATIENCE, async || Ok(recorder.count() > 0)).await?;
        load.stop()?;
        forwarder.stop().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_ends_it_with_one_message() {
    scenario("port-in-use", async |scene| {
        let shards = scene.shards(1, 1).await?;
        let taken = ports::free()?;
        let _held = TcpListener::bind(taken)?;
        let mut settings = scene.settings("f1", &shards);
        settings
            .variables
            .push(("PORT".to_owned(), taken.port().to_string()));
        let mut forwarder = scene.start(settings)?;
        let status = forwarder.process().wait(PATIENCE).await?;
        ensure!(!status.success(), "it ended with {status}");
        says(&mut forwarder, &[&taken.to_string(), "PORT"]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_shards_end_it_with_one_message() {
    scenario("no-shards", async |scene| {
        let mut forwarder = scene.start(scene.settings("f1", &[]))?;
        let status = forwarder.process().wait(PATIENCE).await?;
        ensure!(!status.success(), "it ended with {status}");
        says(&mut forwarder, &["FORWARDER_POOL", "NATS_CLUSTER_"]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_shares_no_partitions_out_is_named() {
    scenario_with_own_broker("no-group-protocol", async |scene, mut broker| {
        broker.kill()?;
        broker.set("KAFKA_GROUP_COORDINATOR_REBALANCE_PROTOCOLS", "classic");
        broker.run().await?;
        let shards = scene.shards(1, 1).await?;
        let mut settings = scene.settings("f1", &shards);
        let variable = ("KAFKA_GROUP_PROTOCOL".to_owned(), "consumer".to_owned());
        settings.variables.push(variable);
        let mut forwarder = scene.start(settings)?;
        let status = forwarder.process().wait(PATIENCE).await?;
        ensure!(!status.success(), "it ended with {status}");
        let broker = broker.address();
        says(&mut forwarder, &[&broker, "KAFKA_GROUP_PROTOCOL", "4.0"]).await
    })
    .await;
}

/// Whoever starts the scenarios without set-up is told what to run.
#[test]
fn a_missing_program_is_named() {
    let message = tools::server("no-such-server")
        .map(drop)
        .map_err(|error| error.to_string());
    assert!(
        message.is_err_and(|it| it.contains("no-such-server") && it.contains("e2e/tools/setup"))
    );
    let message = tools::own("no-such-program")
        .map(drop)
        .map_err(|error| error.to_string());
    assert!(message.is_err_and(|it| it.contains("no-such-program") && it.contains("cargo build")));
}
