//! The subscriptions: one for each asset that is watched here, for as long as it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ofa_client::{
    Client, ClientError, Event, Extent, Gap, Item, Since, SubscribeOptions, Subscription,
};
use ofa_crds::AssetUuid;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::super::frame::Frame;
use super::super::hub::{Delivered, Limits};
use super::super::seen::{AssetTag, Seen};
use super::lane::{Lane, Memory, Offsets};
use super::{RETRY, Trouble, explained};
use crate::event::Columns;
use crate::metrics::Metrics;

/// How long a subscription outlives its last client: those that were sent away are back by then.
const LINGER: Duration = Duration::from_secs(10);

/// Up to so many records of a partition before its end, a new subscription begins where its first client stopped: the replay
/// service has them in memory. What is older is read from Kafka at the client's pace.
const RECENT: u64 = 5_000;

/// Most events of an asset that are handed to its clients together, where they come faster than one by one.
const TOGETHER: usize = 128;

/// All subscriptions.
pub(in crate::group) struct Lanes {
    client: Client,
    topic: Arc<str>,
    limits: Limits,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    says: watch::Sender<Trouble>,
    entries: Mutex<HashMap<Arc<str>, Arc<Entry>>>,
}

struct Entry {
    lane: Lane,
    users: watch::Sender<usize>,
}

/// A client's share of a subscription.
pub(super) struct LaneUse(Arc<Entry>);

impl LaneUse {
    #[must_use]
    pub(super) fn lane(&self) -> &Lane {
        &self.0.lane
    }
}

impl Drop for LaneUse {
    fn drop(&mut self) {
        self.0.users.send_modify(|users| *users -= 1);
    }
}

impl Lanes {
    #[must_use]
    pub(super) fn new(
        client: Client,
        topic: &str,
        limits: Limits,
        metrics: Arc<Metrics>,
        says: watch::Sender<Trouble>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            topic: topic.into(),
            limits,
            memory: Memory::new(limits.ring_bytes),
            metrics,
            says,
            entries: Mutex::default(),
        })
    }

    /// How many there are.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        self.entries.lock().len()
    }

    /// Bytes that may wait for one client.
    #[must_use]
    pub(super) fn queue_bytes(&self) -> usize {
        self.limits.queue_bytes
    }

    /// A share of an asset's subscription, which is begun for this client if there is none.
    #[must_use]
    pub(super) fn share(self: &Arc<Self>, asset: &Arc<str>, seen: &Seen) -> LaneUse {
        let mut entries = self.entries.lock();
        let entry = entries.entry(Arc::clone(asset)).or_insert_with(|| {
            let entry = Arc::new(Entry {
                lane: Lane::new(AssetTag::of(asset), &self.memory),
                users: watch::Sender::new(0),
            });
            let tag = entry.lane.tag();
            let partitions = 0..seen.partitions();
            let wanted = partitions.map(|it| (it, seen.next(tag, it))).collect();
            tokio::spawn(Arc::clone(self).follow(Arc::clone(asset), Arc::clone(&entry), wanted));
            entry
        });
        entry.users.send_modify(|users| *users += 1);
        LaneUse(Arc::clone(entry))
    }

    /// Follows an asset while anybody watches it.
    async fn follow(self: Arc<Self>, asset: Arc<str>, entry: Arc<Entry>, wanted: Offsets) {
        tokio::select! {
            () = self.take_in(&asset, &entry.lane, &wanted) => {}
            () = self.unused(&asset, &entry) => {}
        }
        self.remove(&asset, |it| Arc::ptr_eq(it, &entry));
        entry.lane.end();
    }

    /// Returns when nobody watches for a while; nobody finds the entry any more then.
    async fn unused(&self, asset: &Arc<str>, entry: &Arc<Entry>) {
        let mut users = entry.users.subscribe();
        // The sender is the entry's, so there always is one.
        while users.wait_for(|users| *users == 0).await.is_ok() {
            let back = users.wait_for(|users| *users > 0);
            if tokio::time::timeout(LINGER, back).await.is_err()
                && self.remove(asset, |it| *it.users.borrow() == 0)
            {
                return;
            }
        }
    }

    fn remove(&self, asset: &Arc<str>, condition: impl Fn(&Arc<Entry>) -> bool) -> bool {
        let mut entries = self.entries.lock();
        let removes = entries.get(asset).is_some_and(condition);
        if removes {
            entries.remove(asset);
        }
        removes
    }

    /// Takes an asset's events in, until they can no longer be had without a break that nobody could name.
    async fn take_in(&self, asset: &str, lane: &Lane, wanted: &Offsets) {
        // No asset is nameless, so nothing ever comes.
        let Ok(uuid) = asset.parse() else {
            return std::future::pending().await;
        };
        let mut subscription = loop {
            match self.subscribe(&uuid, lane, wanted).await {
                Ok(subscription) => break subscription.ready_chunks(TOGETHER),
                Err(error) => warn!(
                    asset,
                    why = explained(&error),
                    "not subscribed yet; trying on"
                ),
            }
            tokio::time::sleep(RETRY).await;
        };
        while let Some(items) = subscription.next().await {
            if !self.take_items(asset, lane, items) {
                return;
            }
        }
    }

    /// Takes in what has come of an asset; false when nothing that follows can be told apart from what is missing.
    fn take_items(&self, asset: &str, lane: &Lane, items: Vec<Item>) -> bool {
        let mut frames = Vec::new();
        for item in items {
            if let Item::Event(event) = &item {
                match frame(event, &self.topic) {
                    Ok(frame) => frames.push(Arc::new(frame)),
                    Err(why) => {
                        warn!(asset, why, "nobody is served any more");
                        self.says.send_replace(Some(why));
                        return false;
                    }
                }
                continue;
            }
            self.publish(lane, &mut frames);
            let goes_on = match item {
                Item::Gap(gap) => gap_goes_on(lane, &gap),
                // Clients come back, and are told that their ids are of a former topic.
                Item::Complete { next } => {
                    let delivered = lane.complete(next);
                    delivered.map(|it| self.note(it)).is_some()
                }
                other => {
                    debug!(asset, ?other, "a subscription goes on");
                    true
                }
            };
            if !goes_on {
                return false;
            }
        }
        self.publish(lane, &mut frames);
        true
    }

    /// Hands over what has gathered.
    fn publish(&self, lane: &Lane, frames: &mut Vec<Arc<Frame>>) {
        if !frames.is_empty() {
            self.note(lane.publish(frames, Instant::now()));
            frames.clear();
        }
    }

    async fn subscribe(
        &self,
        asset: &AssetUuid,
        lane: &Lane,
        wanted: &Offsets,
    ) -> Result<Subscription, ClientError> {
        let ends = self.client.ends().await?.next;
        let next = begin(&ends, wanted);
        let options = SubscribeOptions {
            since: Some(Since {
                topic: self.topic.to_string(),
                next: next.clone(),
            }),
            progress: true,
            ..SubscribeOptions::default()
        };
        let subscription = self.client.subscribe_with(asset, options).await?;
        lane.open(next);
        Ok(subscription)
    }

    fn note(&self, delivered: Delivered) {
        self.metrics.delivered(delivered.events, delivered.slow);
    }
}

/// Clients are not told of a gap: they are sent away with ids from before it, and read from Kafka what NATS and the
/// replay service did not give. What Kafka no longer has they are told then.
fn gap_goes_on(lane: &Lane, gap: &Gap) -> bool {
    debug!(%gap, "clients read from Kafka what is missing");
    match &gap.extent {
        Extent::Missed {
            partition, last, ..
        }
        | Extent::Possible {
            partition, last, ..
        } => {
            lane.lost(*partition, last + 1);
            true
        }
        Extent::Unknown => false,
    }
}

/// Where a subscription begins on each partition, for a client that begins at `wanted`.
fn begin(ends: &Offsets, wanted: &Offsets) -> Offsets {
    let first = |(partition, end): (&u32, &u64)| {
        let wanted = wanted.get(partition).map_or(0, |wanted| *wanted.min(end));
        let is_recent = end - wanted <= RECENT;
        (*partition, if is_recent { wanted } else { *end })
    };
    ends.iter().map(first).collect()
}

/// An event as the topic has it, encoded for all who watch.
fn frame(event: &Event, topic: &str) -> Result<Frame, String> {
    let cursor = event.cursor.as_ref().filter(|cursor| cursor.topic == topic);
    let cursor = cursor.ok_or_else(|| {
        format!(
            "the shards of NATS_ROUTER_URL have events that are not of {topic}; give its ForwarderPool shards of its own, and start \
             this service again"
        )
    })?;
    let id = Columns::parse(&event.payload).and_then(|columns| columns.id);
    let id = id.ok_or_else(|| {
        format!(
            "what is on NATS is not what is on {topic}; set spec.payload: Verbatim of its ForwarderPool and PAYLOAD=Verbatim of its \
             replay service, and start this service again"
        )
    })?;
    let at = (cursor.partition, cursor.offset);
    let asset = event.asset.as_str().into();
    let frame = Frame::new(at, asset, Some(id.into()), &event.payload, None);
    Ok(frame.moved_from(event.moved_from.as_deref().map(Into::into)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cursor: &str, payload: &'static str) -> Event {
        Event {
            cursor: cursor.parse().ok(),
            prev: None,
            moved_from: None,
            asset: "A".to_owned(),
            id: "x".to_owned(),
            payload: payload.into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_event_is_the_same_text_as_from_the_topic() {
        let value = r#"{"ID":"x", "VALUE":1}"#;
        let of_nats = frame(&event("t/1/7", value), "t").unwrap();
        let of_topic = Frame::new((1, 7), "A".into(), Some("x".into()), value.as_bytes(), None);
        let text = |frame: &Frame| {
            let mut out = Vec::new();
            frame.write_at(&"id", &mut out);
            out
        };
        assert_eq!(text(&of_nats), text(&of_topic));
        assert_eq!(
            (of_nats.partition, of_nats.offset, of_nats.id),
            (1, 7, of_topic.id)
        );
    }

    #[test]
    fn what_is_no_event_of_the_topic_is_refused_with_what_to_do() {
        let refused = |cursor, payload| frame(&event(cursor, payload), "t").unwrap_err();
        assert!(refused("ofa_assets/1/7", r#"{"ID":"x"}"#).contains("shards of its own"));
        assert!(refused("", r#"{"ID":"x"}"#).contains("shards of its own"));
        assert!(refused("t/1/7", r#"{"VALUE":1}"#).contains("Verbatim"));
    }

    #[test]
    fn what_is_long_ago_is_not_asked_of_the_replay_service() {
        let ends = Offsets::from([(0, 10_000), (1, 3)]);
        let begins = |at: [u64; 2]| begin(&ends, &(0..).zip(at).collect());
        assert_eq!(begins([6_000, 0]), [(0, 6_000), (1, 0)].into());
        assert_eq!(begins([4_999, 3]), [(0, 10_000), (1, 3)].into());
        assert_eq!(begins([20_000, 9]), ends);
    }
}
