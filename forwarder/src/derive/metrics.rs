//! What the deriving of streams tells, beside what every reader of the source does.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
}

/// Metrics of `forwarder derive` alone. Not by group: their number has no bound.
#[derive(Default)]
pub(crate) struct DeriveMetrics {
    pub(crate) written: Counter,
    pub(crate) unmatched: Counter,
    pub(crate) unreadable_map_records: Counter,
    pub(crate) groups: Gauge<u64, AtomicU64>,
    pub(crate) assets: Gauge<u64, AtomicU64>,
    transactions: Family<OutcomeLabel, Counter>,
}

impl DeriveMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register(
            "asset_derive_records_written",
            "Records written to derived topics, those of aborted transactions included",
            self.written.clone(),
        );
        r.register(
            "asset_derive_records_unmatched",
            "Records of assets that belong to no group",
            self.unmatched.clone(),
        );
        r.register(
            "asset_derive_unreadable_map_records",
            "Records of the UNS map that say nothing",
            self.unreadable_map_records.clone(),
        );
        r.register(
            "asset_derive_groups",
            "Groups that have assets",
            self.groups.clone(),
        );
        r.register(
            "asset_derive_assets",
            "Assets that belong to a group",
            self.assets.clone(),
        );
        r.register(
            "asset_derive_transactions",
            "Transactions, by outcome",
            self.transactions.clone(),
        );
    }

    pub(crate) fn transaction(&self, outcome: Outcome) {
        self.transactions
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }
}
