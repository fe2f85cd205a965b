//! Tells the operator that this service is needed, so that it is not put to sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ofa_crds::kafka::ControlTopic;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::Metrics;

/// Not more often than this, however short the idle time, and not more rarely than that: a restarted operator should
/// soon know.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(15);

/// Whether somebody has used the service since this was asked last.
#[derive(Debug, Default)]
pub(super) struct Use(AtomicBool);

impl Use {
    /// Somebody uses it.
    pub(super) fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Where and how often the operator is told.
pub(super) struct KeepAwake {
    pub(super) control: ControlTopic,
    pub(super) topic: String,
    pub(super) member: String,
    pub(super) idle: Duration,
}

impl KeepAwake {
    /// Tells it until `stop` while streams are open or requests come.
    pub(super) async fn run(self, used: Arc<Use>, metrics: Arc<Metrics>, stop: CancellationToken) {
        let every = (self.idle / 3).clamp(SOONEST, LATEST);
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            if !(used.take() || metrics.streams() > 0) {
                continue;
            }
            // One word that is lost is followed by the next.
            if let Err(error) = self.control.want(&self.topic, &self.member).await {
                debug!(%error, "the operator is not told that this service is needed");
                used.mark();
            }
        }
    }
}
