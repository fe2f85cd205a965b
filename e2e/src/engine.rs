//! `forwarder derive` as a process, and the map that it goes by.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use crate::kafka::{Broker, Record};
use crate::process::Process;
use crate::{http, ports, tools, wait};

/// The topic that tells each asset's place.
pub const MAP: &str = "asset_to_uns_map_topic";

/// Long enough for a member to be missed and a transaction of a dead one to be given up, on a busy machine.
const READY: Duration = Duration::from_secs(90);

/// Starts a member called `name`, of the settings `further` too, and waits until it is ready.
///
/// # Errors
/// When it ends, or is not ready in time.
pub async fn start(
    broker: &Broker,
    name: &str,
    further: &[(&str, &str)],
    folder: &Path,
) -> Result<Process> {
    let address = ports::free()?;
    let mut command = tools::own("forwarder")?;
    command
        .arg("derive")
        .env("KAFKA_BROKER", broker.address())
        .env("KAFKA_AUTO_OFFSET_RESET", "earliest")
        .env("APP_UUID", name)
        .env("BIND_ADDRESS", address.ip().to_string())
        .env("PORT", address.port().to_string())
        .envs(further.iter().copied());
    let mut process = Process::start(name, folder, command)?;
    wait::until("a member to be ready", READY, async || {
        if let Some(status) = process.ended()? {
            bail!("{name} has ended ({status}): {}", process.tail(5));
        }
        let answer = http::get(address, "/ready").await;
        Ok(answer.is_ok_and(|(status, _)| status == 200))
    })
    .await?;
    Ok(process)
}

/// Says in the map that an asset is in a work centre.
///
/// # Errors
/// When Kafka does not take it.
pub fn register(broker: &Broker, asset: &str, workcenter: &str) -> Result<()> {
    broker.produce(MAP, &[map_record(asset, workcenter)])
}

/// What the map has of an asset in a work centre.
#[must_use]
pub fn map_record(asset: &str, workcenter: &str) -> Record {
    let value = json!({ "UNS_LEVELS": { "workcenter": workcenter } }).to_string();
    Record {
        key: Some(asset.into()),
        value: Some(value.into()),
        partition: 0,
    }
}
