//! What a client holds while it watches.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use ofa_crds::Cursor;
use tokio::sync::mpsc;

use crate::item::Item;

/// How a subscription behaves.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Items that wait for their consumer. Beside it some 16,000 events may wait; what comes beyond these is asked of the replay
    /// service when the consumer goes on, or told as a gap where there is none.
    pub queue: usize,
    /// Whether events that are not newer than what was yielded are yielded as [`Item::Stale`].
    pub stale: bool,
    /// Resumes after these cursors, one for each partition; elsewhere the subscription begins now. For one asset the
    /// cursor of its last event that was seen is enough, unless it appears on several partitions.
    pub from: Vec<Cursor>,
    /// Begins exactly here, wherever that is; wins over `from`.
    pub since: Option<Since>,
    /// Whether it is told how far the subscription is complete ([`Item::Complete`]).
    pub progress: bool,
}

/// A place between two events of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The topic that the forwarders read.
    pub topic: String,
    /// For each partition the first offset that is wanted; of one that is not named everything is.
    pub next: BTreeMap<u32, u64>,
}

impl SubscribeOptions {
    /// Whether an item is to be yielded.
    pub(crate) fn want(&self, item: &Item) -> bool {
        match item {
            Item::Stale(_) => self.stale,
            Item::Complete { .. } => self.progress,
            _ => true,
        }
    }
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            // A second of a busy machine, a few hundred KiB.
            queue: 1024,
            stale: false,
            from: Vec::new(),
            since: None,
            progress: false,
        }
    }
}

/// A stream of [`Item`]s; ends the subscription when dropped.
#[derive(Debug)]
pub struct Subscription {
    items: mpsc::Receiver<Item>,
}

impl Subscription {
    pub(crate) fn new(items: mpsc::Receiver<Item>) -> Self {
        Self { items }
    }

    /// The next item. `None` only when the runtime shuts down.
    pub async fn next_item(&mut self) -> Option<Item> {
        self.items.recv().await
    }
}

impl Stream for Subscription {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.items.poll_recv(cx)
    }
}
