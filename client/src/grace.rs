//! How long the shard that an asset moves away from is listened to beside the new one.

use std::time::Duration;

use tokio::time::Instant;

/// At most. Forwarders are told of a new map before clients are, so what is still on its way through the former shard
/// arrives well within this.
const MOST: Duration = Duration::from_secs(3);

/// And at least, also when the new shard has shown that it delivers: what comes twice costs all of them. Another forwarder's node,
/// for events on another partition, may learn of the subscription later; a busy one may take a second.
const LEAST: Duration = Duration::from_secs(1);

/// When the former shard is left.
#[derive(Debug)]
pub(crate) struct Grace {
    since: Instant,
    ends: Instant,
}

impl Grace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            ends: now + MOST,
        }
    }

    /// The new shard can deliver from now on only: its connection has just been made.
    pub(crate) fn begin(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The new shard delivers, and the former one only sends the same again.
    pub(crate) fn shorten(&mut self) {
        self.ends = self.ends.min(self.since + LEAST);
    }

    /// When the former shard is not listened to any more.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }
}
