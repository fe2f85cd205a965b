//! Notices assets that have events on two partitions: producers of theirs place keys by different rules, and the order
//! of their events holds on each partition only.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ofa_crds::MixedPartitions;
use ofa_crds::kafka::ControlTopic;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::record::Record;
use crate::metrics::Metrics;
use crate::router::Routing;

/// Places in the table, 16 bytes each: 4 MiB, whatever the number of assets. Of two assets that share a place, the one
/// seen last has it: an asset on two partitions is found as soon as two of its events come in close order.
const PLACES: usize = 1 << 18;

/// How often what was found is told: people read it.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Most assets that are counted one by one; a number beyond says as much.
const MAX_COUNTED: usize = 10_000;

/// Where each asset was seen last, as far as that is known.
pub(super) struct Mixed {
    /// Hash and partition; a hash of 0 marks an empty place.
    places: Vec<(u64, u32)>,
    found: HashSet<u64>,
    reports: watch::Sender<Option<MixedPartitions>>,
    metrics: Arc<Metrics>,
}

impl Mixed {
    /// Nothing is known yet. What is found is sent to `reports`.
    pub(super) fn new(
        reports: watch::Sender<Option<MixedPartitions>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            places: vec![(0, 0); PLACES],
            found: HashSet::new(),
            reports,
            metrics,
        }
    }

    /// Takes in where an event stands.
    pub(super) fn note(&mut self, record: &Record, partition: u32) {
        let hash = record.hash.0;
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let (known, before) = std::mem::replace(&mut self.places[place], (hash, partition));
        if known == hash && before != partition {
            self.report(record, [before, partition]);
        }
    }

    fn report(&mut self, record: &Record, partitions: [u32; 2]) {
        if self.found.len() >= MAX_COUNTED || !self.found.insert(record.hash.0) {
            return;
        }
        let assets = self.found.len() as u64;
        self.metrics.mixed_assets(assets);
        // The first few by name, the others by number.
        if assets <= 10 {
            warn!(
                asset = &*record.asset,
                ?partitions,
                assets,
                "an asset has events on two partitions; let all its producers use one partitioner"
            );
        }
        self.reports.send_replace(Some(MixedPartitions {
            assets,
            example: record.asset.as_ref().to_owned(),
            partitions,
        }));
    }
}

/// Tells the pool's status, by the control topic, what was found, until told to stop.
pub(super) async fn tell(
    control: ControlTopic,
    routing: watch::Receiver<Routing>,
    mut reports: watch::Receiver<Option<MixedPartitions>>,
    stop: CancellationToken,
) {
    let mut changed = true;
    loop {
        let pool = pool(&routing);
        if changed && let Some(pool) = pool {
            let report = reports.borrow_and_update().clone();
            match control.publish_mixed(&pool, report.as_ref()).await {
                Ok(()) => changed = false,
                Err(error) => debug!(%error, "what was found is not told yet"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TELL_INTERVAL) => {}
        }
        changed |= reports.has_changed().unwrap_or(false);
    }
}

fn pool(routing: &watch::Receiver<Routing>) -> Option<String> {
    match &*routing.borrow() {
        Routing::Known { pool, .. } => pool.clone(),
        Routing::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_on_two_partitions_is_found_once() {
        let (sender, reports) = watch::channel(None);
        let mut mixed = Mixed::new(sender, Arc::new(Metrics::new("replay")));
        for offset in 0..10 {
            mixed.note(&Record::for_test(offset, "A"), 0);
            mixed.note(&Record::for_test(offset, "B"), 1);
        }
        assert_eq!(*reports.borrow(), None);
        for offset in 10..20 {
            mixed.note(
                &Record::for_test(offset, "A"),
                u32::try_from(offset % 2).unwrap(),
            );
            mixed.note(&Record::for_test(offset, "B"), 1);
        }
        let found = reports.borrow().clone().unwrap();
        assert_eq!((found.assets, found.example.as_str()), (1, "A"));
        assert_eq!(found.partitions, [0, 1]);
    }
}
