//! What arrives at subscribers.
//!
//! A [`Recorder`] is a plain NATS client on *one* node, which takes down every message that comes, in order and
//! undeduplicated: the harness' own eye, with nothing of the client library between. A [`Follower`] is the client
//! library's subscription to a whole shard, which changes nodes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::Subscriber;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use ofa_client::{Client, ClientOptions, Event, Item, SubscribeOptions};
use ofa_crds::{subject, wire};
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::timeout;

use crate::nats::Node;

/// Messages that may wait between the connection and the recorder, on a machine where it may not get the CPU for
/// seconds: nothing may be lost inside the harness.
const CAPACITY: usize = 1 << 20;

/// How often a recorder looks for messages unasked: on busy machines one was seen asleep for minutes with thousands waiting, and
/// what is to be found out is not how its runtime fares.
const LOOK: Duration = Duration::from_millis(100);

/// Two tokens: an asset's event, and never one of the project's control messages.
const EVERY_EVENT: &str = "*.*";

/// A scenario has no half a minute for each change of shards.
const MAP_INTERVAL: Duration = Duration::from_secs(2);

/// What has come, and the subscription by which it comes.
#[derive(Debug)]
struct Inbox {
    messages: Subscriber,
    log: Vec<Event>,
    /// Messages that are no event of an asset.
    foreign: u64,
}

impl Inbox {
    /// Takes down what waits; ready when nothing can come any more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(message) = ready!(self.messages.poll_next_unpin(context)) {
            match read(message) {
                Some(event) => self.log.push(event),
                None => self.foreign += 1,
            }
        }
        Poll::Ready(())
    }
}

/// Takes down everything that one node delivers.
#[derive(Debug)]
pub struct Recorder {
    node: String,
    inbox: Arc<Mutex<Inbox>>,
    /// Whether the connection was lost or messages were thrown away.
    broken: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Subscribes to every event on a node.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start(node: &Node) -> Result<Self> {
        Self::start_on(node, EVERY_EVENT).await
    }

    /// Subscribes to some of the events on a node.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start_on(node: &Node, subject: &'static str) -> Result<Self> {
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
        let messages = client.subscribe(subject).await?;
        client.flush().await?;
        let inbox = Arc::new(Mutex::new(Inbox {
            messages,
            log: Vec::new(),
            foreign: 0,
        }));
        let shared = inbox.clone();
        let task = tokio::spawn(async move {
            // Held: the subscription lives as long as its client.
            let _client = client;
            let mut taken = pin!(poll_fn(|context| lock(&shared).poll(context)));
            while timeout(LOOK, &mut taken).await.is_err() {}
        });
        Ok(Self {
            node: node.name().to_owned(),
            inbox,
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
        let mut inbox = lock(&self.inbox);
        // What the task has not been woken for.
        let _ = unconstrained(poll_fn(|context| inbox.poll(context))).now_or_never();
        inbox.log.clone()
    }

    /// How many messages were received so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.inbox).log.len()
    }

    /// Messages that were no event of an asset: must be none.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        lock(&self.inbox).foreign
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
    items: Arc<Mutex<Vec<(Timestamp, Item)>>>,
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
            map_interval: MAP_INTERVAL,
            ..ClientOptions::default()
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
                lock(&shared).push((Timestamp::now(), item));
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
        let items = lock(&self.items);
        items.iter().map(|(_, item)| item.clone()).collect()
    }

    /// The same, each with the moment when it was yielded: an event that had to wait for another was received before.
    #[must_use]
    pub fn yielded(&self) -> Vec<(Timestamp, Item)> {
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
