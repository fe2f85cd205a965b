//! Counts every event of every shard, and measures how long they took.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ofa_crds::wire;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::latency::Latencies;
use ofa_client::audit::Received;
use ofa_client::{Client, Event, Item, SubscribeOptions};

/// How often it is looked whether there are new shards.
const SHARD_POLL: Duration = Duration::from_secs(2);

/// What has been counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: Received,
    pub(crate) by_shard: BTreeMap<String, u64>,
    /// Of all events.
    pub(crate) latencies: Latencies,
    /// Of the events since the view last looked.
    pub(crate) recent: Latencies,
    /// The asset of the first event.
    pub(crate) first_asset: Option<String>,
    pub(crate) gaps: u64,
    pub(crate) reconnects: u64,
}

/// Shared by the counters of all shards and the view.
pub(crate) type SharedTally = Arc<Mutex<Tally>>;

/// Watches all shards, also those that come later. Never returns.
pub(crate) async fn count(client: Client, tally: SharedTally) {
    let mut watched = HashSet::new();
    let mut counters = JoinSet::new();
    loop {
        match client.shards().await {
            Ok(Some(answer)) => {
                for shard in answer.shards {
                    if watched.insert(shard.name.clone()) {
                        counters.spawn(count_shard(client.clone(), shard.name, Arc::clone(&tally)));
                    }
                }
            }
            Ok(None) => warn!("the router does not tell of its shards"),
            Err(error) => debug!(%error, "the shards are not known"),
        }
        tokio::time::sleep(SHARD_POLL).await;
    }
}

async fn count_shard(client: Client, shard: String, tally: SharedTally) {
    let options = SubscribeOptions {
        stale: true,
        ..SubscribeOptions::default()
    };
    let mut subscription = match client.subscribe_all(&shard, options).await {
        Ok(subscription) => subscription,
        Err(error) => {
            warn!(shard, %error, "the shard's events are not counted");
            return;
        }
    };
    while let Some(item) = subscription.next_item().await {
        let mut tally = tally.lock();
        tally.received.note(&shard, &item);
        match &item {
            Item::Event(event) => {
                *tally.by_shard.entry(shard.clone()).or_default() += 1;
                if let Some(latency) = latency_of(event) {
                    tally.latencies.add(latency);
                    tally.recent.add(latency);
                }
                if tally.first_asset.is_none() {
                    tally.first_asset = Some(event.asset.clone());
                }
            }
            Item::Gap(_) => tally.gaps += 1,
            Item::Reconnected { .. } => tally.reconnects += 1,
            _ => {}
        }
    }
}

/// From the record's timestamp in Kafka to the arrival here. Kafka's timestamps have milliseconds.
pub(crate) fn latency_of(event: &Event) -> Option<Duration> {
    let parsed = event.parsed().ok()?;
    let appended: Timestamp = parsed.attribute(wire::ATTR_KAFKA_TIMESTAMP)?.parse().ok()?;
    let latency = event.received_at.duration_since(appended);
    // Clocks that disagree, on several machines, would make it negative.
    Some(latency.try_into().unwrap_or(Duration::ZERO))
}
