//! The protocol of a pool's consumer group, changed under load.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ofa_e2e::load::Pace;
use ofa_e2e::operator::{Operator, is_settled, pool, shard};
use ofa_e2e::report;
use ofa_e2e::scene::{PARTITIONS, say, scenario};
use ofa_e2e::serving::Serving;
use ofa_e2e::wait;
use ofa_e2e::watch::Follower;
use serde_json::Value;
use tokio::time::sleep;

/// Two forwarders, one after the other, each given time to drain; the operator asks Kafka every 5 s.
const ROLLED: Duration = Duration::from_secs(60);

/// To the broker's protocol with no forwarder in between, since Kafka takes no member of it into a classic group of ours;
/// back one by one, with members of both kinds in the group. The pool's status tells of members by whatever protocol.
#[tokio::test(flavor = "multi_thread")]
async fn forwarders_change_the_protocol_of_their_group_and_nothing_is_lost() {
    scenario("group-protocol", async |scene| {
        let (file, classic) = pool(scene, scene.broker());
        let consumer = format!("{classic}  groupProtocol: Consumer\n");
        let resources = [shard("line-1"), (file.clone(), classic.clone())];
        let mut operator = Operator::start(scene.folder(), &resources)?;
        operator.wait_settled().await?;
        let broker = scene.broker().address();
        let router = Serving::router_of_pool(&broker, "factory.pool", None, scene.folder()).await?;
        let follower = Follower::start(&router.url(), "line-1", "follower").await?;
        let load = scene.load(Pace::default())?;
        members_of_all_partitions(&operator, &BTreeMap::new()).await?;
        sleep(Duration::from_secs(1)).await;
        operator.write(&file, &classic.replace("replicas: 2", "replicas: 0"))?;
        let gone = async || Ok(forwarders(&operator)?.is_empty());
        wait::until("no forwarders", ROLLED, gone).await?;
        operator.write(&file, &consumer)?;
        let before = members_of_all_partitions(&operator, &BTreeMap::new()).await?;
        sleep(Duration::from_secs(1)).await;
        operator.write(&file, &classic)?;
        members_of_all_partitions(&operator, &before).await?;

        let expected = scene.settle(load).await?;
        sleep(Duration::from_millis(500)).await;
        let verdict = report::of_items(
            &expected,
            &[(follower.shard().to_owned(), follower.items())],
        );
        say(&format!("scenario group-protocol: {verdict}"));
        verdict.must_be_perfect()?;
        operator.stop().await
    })
    .await;
}

/// Waits until two forwarders, both others than before, are members that have all partitions between them and
/// publish by the newest map. Returns their processes.
async fn members_of_all_partitions(
    operator: &Operator,
    before: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut running = BTreeMap::new();
    let reached = wait::until("members of all partitions", ROLLED, async || {
        running = forwarders(operator)?;
        let replaced = |(name, process): (&String, &String)| before.get(name) != Some(process);
        let others = running.len() == 2 && running.iter().all(replaced);
        Ok(others && is_whole(&operator.status()?)?)
    });
    reached
        .await
        .with_context(|| format!("{:#}", operator.status().unwrap_or_default()["items"]))?;
    Ok(running)
}

fn forwarders(operator: &Operator) -> Result<BTreeMap<String, String>> {
    let mut running = operator.processes()?;
    running.retain(|name, _| name.starts_with("pool-"));
    Ok(running)
}

fn is_whole(status: &Value) -> Result<bool> {
    let items = status["items"].as_array().context("no items")?;
    let pool = items.iter().find(|item| item["kind"] == "ForwarderPool");
    let pool = pool.context("no pool")?;
    let told = &pool["status"];
    Ok(is_settled(pool)
        && told["members"] == 2
        && told["assignedPartitions"] == PARTITIONS
        && told["lag"].is_u64()
        && told.get("unacknowledged").is_none())
}
