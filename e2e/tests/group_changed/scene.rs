//! Three groups, an asset of each that stays, and one that moves.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ofa_crds::GroupName;
use ofa_e2e::engine::{MAP, register};
use ofa_e2e::kafka::{Broker, Record};
use ofa_e2e::serving::Serving;
use ofa_e2e::sse::{EventSource, Received};
use ofa_e2e::wait;

pub(crate) const SOURCE: &str = "ofa_assets";
const PARTITIONS: i32 = 3;

/// The one that moves, and one of each group that stays: of the same partition, so that the topics' numbers differ.
pub(crate) const MOVES: &str = "mover";
pub(crate) const GROUPS: [&str; 3] = ["Weld", "Paint", QUIET];
pub(crate) const QUIET: &str = "Store";

/// How long anything may take, on a machine that is busy with other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The source, and a map in which the one that moves is in the first group.
pub(crate) async fn create_topics(broker: &Broker) -> Result<()> {
    broker.create_topic(SOURCE, PARTITIONS).await?;
    broker.create_topic(MAP, 1).await?;
    for group in GROUPS {
        register(broker, &format!("stays-{group}"), group)?;
    }
    register(broker, MOVES, GROUPS[0])
}

pub(crate) async fn topics_to_be_there(broker: &Broker) -> Result<()> {
    wait::until("the groups' topics to be there", LIMIT, async || {
        Ok(GROUPS
            .iter()
            .all(|group| broker.ends(&topic(group)).is_ok()))
    })
    .await
}

pub(crate) async fn wait_for(client: &EventSource, events: usize) -> Result<()> {
    wait::until("events to come", LIMIT, async || {
        Ok(client.received().events.len() >= events)
    })
    .await
}

fn number(event: &str) -> Result<u64> {
    let value: serde_json::Value = serde_json::from_str(event)?;
    value["VALUE"].as_u64().context("an event without number")
}

pub(crate) fn topic(group: &str) -> String {
    let group: GroupName = group
        .parse()
        .unwrap_or_else(|_| unreachable!("a group's name"));
    group.topic()
}

/// The groups' services, the first one's of these settings too, and a router that knows them.
pub(crate) async fn serving(
    broker: &Broker,
    of_first: &[(&str, &str)],
    folder: &Path,
) -> Result<(Serving, Vec<Serving>)> {
    let mut services = Vec::new();
    let mut addresses = serde_json::Map::new();
    for group in GROUPS {
        let mut further = vec![("ASSET_GROUP", group)];
        if services.is_empty() {
            further.extend(of_first);
        }
        let mut service =
            Serving::group(group, &broker.address(), &topic(group), &further, folder)?;
        service.run()?;
        service.wait_ready().await?;
        addresses.insert(group.to_owned(), service.url().into());
        services.push(service);
    }
    let file = folder.join("services.json");
    std::fs::write(&file, serde_json::Value::Object(addresses).to_string())?;
    let router = Serving::router_of_groups(&broker.address(), &file, folder).await?;
    Ok((router, services))
}

/// The numbers of what a client has received.
pub(crate) fn numbers(received: &Received) -> Result<Vec<u64>> {
    received.events.iter().map(|it| number(it)).collect()
}

pub(crate) fn event(asset: &str, number: u64, partition: i32) -> Record {
    Record {
        key: Some(asset.into()),
        value: Some(format!(r#"{{"ID":"n","VALUE":{number}}}"#).into()),
        partition,
    }
}
