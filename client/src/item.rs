//! What a subscription yields.

use std::collections::BTreeMap;
use std::fmt;

use crate::event::Event;

/// One thing that happened to a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The next event of an asset.
    Event(Event),
    /// An event that is not newer than what was yielded before. Only with
    /// [`SubscribeOptions::stale`](crate::SubscribeOptions), for whoever counts duplicates.
    Stale(Event),
    /// Events are missing here, or may be.
    Gap(Gap),
    /// The subscription now receives from another shard.
    Moved {
        /// The shard before.
        from: String,
        /// The shard from now on.
        to: String,
        /// Epoch of the shard map that says so, where the router tells.
        epoch: Option<u64>,
    },
    /// The connection to the shard is lost; another node is being tried.
    Disconnected {
        /// The shard.
        shard: String,
    },
    /// The connection stands. What was published meanwhile was missed: it follows from the replay service, or, without
    /// one, the next event of each asset tells whether there was anything.
    Reconnected {
        /// The shard.
        shard: String,
        /// Name of the node.
        node: String,
    },
    /// Every event of the asset below these offsets was yielded, or named in a gap, before this. Only with
    /// [`SubscribeOptions::progress`](crate::SubscribeOptions), and where there is a replay service to ask.
    Complete {
        /// For each partition of the topic the first offset of which that is not known.
        next: BTreeMap<u32, u64>,
    },
}

/// Missing events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The asset; `None` when it may be any that the subscription watches.
    pub asset: Option<String>,
    /// What is missing.
    pub extent: Extent,
    /// Who missed it.
    pub cause: Cause,
    /// With [`Cause::Retention`], the newest event of each attribute that Kafka still has. They come again, in their
    /// turn, among the events that follow.
    pub state: Vec<Event>,
}

impl Gap {
    /// Something is missing, and nothing is known of it.
    #[must_use]
    pub fn unknown(cause: Cause) -> Self {
        Self {
            asset: None,
            extent: Extent::Unknown,
            cause,
            state: Vec::new(),
        }
    }
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// The asset's event at `last` was missed, and perhaps some before it, but none before `first`.
    Missed {
        /// Kafka topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// First offset that may be missing.
        first: u64,
        /// Last offset that is missing.
        last: u64,
    },
    /// Nothing tells whether the asset had events at these offsets: the forwarder did not know the event before.
    Possible {
        /// Kafka topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// First offset that may be missing.
        first: u64,
        /// Last offset that may be missing.
        last: u64,
    },
    /// Nothing is known but that something was missed.
    Unknown,
}

/// Who missed the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// They did not arrive: the connection was interrupted, or they were lost on the way, and no replay service has
    /// answered.
    Delivery,
    /// They arrived, but more were waiting than there is room for, because the consumer was too slow, and there is no replay
    /// service to ask for them.
    SlowConsumer,
    /// They were asked for again, and Kafka's retention had taken them.
    Retention,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asset = self.asset.as_deref().unwrap_or("some asset");
        match &self.extent {
            Extent::Missed {
                topic,
                partition,
                first,
                last,
            } => write!(
                f,
                "{asset}: missed events in {topic}/{partition}/{first}..={last}"
            )?,
            Extent::Possible {
                topic,
                partition,
                first,
                last,
            } => write!(
                f,
                "{asset}: may have missed events in {topic}/{partition}/{first}..={last}"
            )?,
            Extent::Unknown => write!(f, "{asset}: missed events")?,
        }
        match self.cause {
            Cause::Delivery => Ok(()),
            Cause::SlowConsumer => write!(f, " (this consumer is too slow)"),
            Cause::Retention => write!(f, " (Kafka no longer has them)"),
        }
    }
}
