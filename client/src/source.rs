//! One subscription on one shard.

use std::sync::Arc;

use async_nats::Subscriber;
use tokio::sync::watch;

use crate::connection::{LinkState, ShardConnection};
use crate::error::ClientError;
use crate::item::Item;

/// A subscription on one shard, and what was last known about its connection.
pub(crate) struct Source {
    connection: Arc<ShardConnection>,
    pub(crate) subscriber: Subscriber,
    pub(crate) link: watch::Receiver<LinkState>,
    reported: LinkState,
    connects: u64,
    overflows: u64,
}

impl Source {
    pub(crate) async fn open(
        connection: Arc<ShardConnection>,
        subject: &str,
    ) -> Result<Self, ClientError> {
        let subscriber = connection.subscribe(subject).await?;
        let link = connection.link();
        // A connection that is still being made is no loss: nothing was subscribed before.
        let reported = LinkState {
            connected: true,
            ..*link.borrow()
        };
        Ok(Self {
            subscriber,
            overflows: reported.overflows,
            reported,
            link,
            connects: connection.connects(),
            connection,
        })
    }

    /// Waits until the subscription is written to the node.
    pub(crate) async fn flush(&self) {
        self.connection.flush().await;
    }

    pub(crate) fn shard(&self) -> &str {
        &self.connection.shard
    }

    /// Whether another connection than before delivers from here on.
    pub(crate) fn delivers_anew(&mut self) -> Option<Anew> {
        let connects = self.connection.connects();
        let before = std::mem::replace(&mut self.connects, connects);
        match before {
            _ if connects == before => None,
            0 => Some(Anew::First),
            _ => Some(Anew::Again),
        }
    }

    /// Whether messages were thrown away before they were read since it was last asked.
    pub(crate) fn has_thrown_away(&mut self) -> bool {
        let overflows = self.link.borrow().overflows;
        std::mem::replace(&mut self.overflows, overflows) != overflows
    }

    /// What happened to the connection since it was last asked.
    pub(crate) fn news(&mut self) -> Vec<Item> {
        let now = *self.link.borrow_and_update();
        let before = std::mem::replace(&mut self.reported, now);
        let shard = || self.shard().to_owned();
        let mut news = Vec::new();
        if now.losses > before.losses {
            news.push(Item::Disconnected { shard: shard() });
        }
        if now.connected && (!before.connected || now.losses > before.losses) {
            news.push(Item::Reconnected {
                shard: shard(),
                node: self.connection.node(),
            });
        }
        news
    }
}

/// A connection that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anew {
    /// It interrupts nothing.
    First,
    /// What was sent since the former one was lost did not arrive.
    Again,
}
