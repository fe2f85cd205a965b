//! What arrives at subscribers.
//!
//! A [`Recorder`] is a plain NATS client on *one* node, which takes down every message that comes, in order and
//! undeduplicated: the harness' own eye, with nothing of the client library between. A [`Follower`] is the client
//! library's subscription to a whole shard, which changes nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use jiff::Timestamp;
use ofa_client::{Client, ClientOptions, Event, Item, SubscribeOptions};
use ofa_crds::{subject, wire};
use tokio::task::JoinHandle;

use crate::nats::Node;

/// Messages that may wait between the connection and the recorder, on a machine where it may not get the CPU for
/// seconds: nothing may be lost inside the harness.
const CAPACITY: usize = 1 << 20;

/// Two tokens: an asset's event, and never one of the project's control messages.
const EVERY_EVENT: &str = "*.*";

/// Takes down everything that one node delivers.
#[derive(Debug)]
pub struct Recorder {
    node: String,
    log: Arc<Mutex<Vec<Event>>>,
    /// Messages that are no event of an asset.
    foreign: Arc<AtomicU64>,
    /// Whether the connection was lost or messages were thrown away.
    broken: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Subscribes on a node.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start(node: &Node) -> Result<Self> {
        let broken = Arc::new(AtomicBool::new(false));
        let flag = broken.clone();
        let client = async_nats::ConnectOptions::new()
            .name(format!("recorder of {}", node.name()))
            .subscription_capacity(CAPACITY)
            .event_callback(move |event| {
                if !matches!(event, async_nats::Event::Connected) {
                    flag.store(true, Ordering::Relaxed);
                }
                std::future::ready(())
            })
            .connect(node.url())
            .await?;
        let mut messages = client.subscribe(EVERY_EVENT).await?;
        client.flush().await?;
        let (log, foreign) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicU64::new(0)),
        );
        let (shared, others) = (log.clone(), foreign.clone());
        let task = tokio::spawn(async move {
            // Held: the subscription lives as long as its client.
            let _client = client;
            while let Some(message) = messages.next().await {
                match read(message) {
                    Some(event) => lock(&shared).push(event),
                    None => {
                        others.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self {
            node: node.name().to_owned(),
            log,
            foreign,
            broken,
            task,
        })
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Everything received so far, in order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Event> {
        lock(&self.log).clone()
    }

    /// How many messages were received so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.log).len()
    }

    /// Messages that were no event of an asset: must be none.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Whether it was connected to its node, and kept up, the whole time.
    #[must_use]
    pub fn is_unbroken(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client library's subscription to everything of a shard.
#[derive(Debug)]
pub struct Follower {
    shard: String,
    items: Arc<Mutex<Vec<Item>>>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Subscribes by a router; `name` is that of the NATS connection.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start(router: &str, shard: &str, name: &str) -> Result<Self> {
        let options = ClientOptions {
            name: name.to_owned(),
            credentials: None,
        };
        let client = Client::with_options(router, options)?;
        let options = SubscribeOptions {
            queue: CAPACITY,
            stale: true,
            ..SubscribeOptions::default()
        };
        let mut subscription = client
            .subscribe_all(shard, options)
            .await
            .context("subscribing by the router")?;
        let items = Arc::new(Mutex::new(Vec::new()));
        let shared = items.clone();
        let task = tokio::spawn(async move {
            let _client = client;
            while let Some(item) = subscription.next_item().await {
                lock(&shared).push(item);
            }
        });
        Ok(Self {
            shard: shard.to_owned(),
            items,
            task,
        })
    }

    /// The shard's name.
    #[must_use]
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// Everything that the subscription has yielded so far.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        lock(&self.items).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a message by the contract alone.
fn read(message: async_nats::Message) -> Option<Event> {
    let header = |name: &str| {
        message
            .headers
            .as_ref()?
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    let (asset, id) = message.subject.as_str().split_once('.')?;
    let name = |from: &str, token: &str| {
        subject::decode_token(&header(from).unwrap_or_else(|| token.to_owned()))
    };
    Some(Event {
        cursor: Some(header(wire::HEADER_CURSOR)?.parse().ok()?),
        prev: header(wire::HEADER_PREV_OFFSET).and_then(|text| text.parse().ok()),
        moved_from: None,
        asset: name(wire::HEADER_ASSET, asset)?,
        id: name(wire::HEADER_ID, id)?,
        payload: message.payload,
        received_at: Timestamp::now(),
    })
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
