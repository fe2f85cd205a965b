//! Whether the forwarder lives and is ready, and what is pending.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A pump that has not gone round for this long hangs: no step of it blocks longer than a request to Kafka.
const HANGS: Duration = Duration::from_secs(60);

/// What the probes answer from.
pub(crate) struct Health {
    inner: Mutex<Inner>,
}

struct Inner {
    beat: Option<Instant>,
    joined: bool,
    pending: BTreeMap<&'static str, String>,
}

impl Health {
    pub(crate) fn new() -> Self {
        let pending = BTreeMap::from([("kafka", "not joined the consumer group yet".to_owned())]);
        Self {
            inner: Mutex::new(Inner {
                beat: None,
                joined: false,
                pending,
            }),
        }
    }

    /// The pump has gone round.
    pub(crate) fn beat(&self) {
        self.inner.lock().beat = Some(Instant::now());
    }

    /// The group has answered.
    pub(crate) fn joined(&self) {
        let mut inner = self.inner.lock();
        inner.joined = true;
        inner.pending.remove("kafka");
    }

    /// Says what is being waited for.
    pub(crate) fn pending(&self, what: &'static str, why: String) {
        self.inner.lock().pending.insert(what, why);
    }

    /// It is there now.
    pub(crate) fn settled(&self, what: &'static str) {
        self.inner.lock().pending.remove(what);
    }

    pub(crate) fn set_unreachable(&self, shards: &[String]) {
        let mut inner = self.inner.lock();
        if shards.is_empty() {
            inner.pending.remove("shards");
        } else {
            inner
                .pending
                .insert("shards", format!("cannot reach {}", shards.join(", ")));
        }
    }

    /// Whether the pump goes round, or has not begun yet.
    pub(crate) fn is_live(&self) -> bool {
        self.inner
            .lock()
            .beat
            .is_none_or(|beat| beat.elapsed() < HANGS)
    }

    /// What is pending. A shard that cannot be reached is told but does not make the forwarder unready:
    /// the other shards are served.
    pub(crate) fn readiness(&self) -> (bool, BTreeMap<&'static str, String>) {
        let inner = self.inner.lock();
        let ready = inner.joined && inner.pending.keys().all(|what| *what == "shards");
        (ready, inner.pending.clone())
    }
}
