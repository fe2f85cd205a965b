//! What the operator measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The operator's registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    passes: Counter,
    passed: Arc<AtomicBool>,
    reconciliations: Family<Reconciliation, Counter>,
    leader: Gauge,
    pending: Arc<Mutex<Vec<String>>>,
}

/// Which kind of resource was reconciled, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciliation {
    kind: String,
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let passes = Counter::default();
        registry.register(
            "ofa_operator_reconcile_passes",
            "Passes over all resources since the start",
            passes.clone(),
        );
        let reconciliations = Family::<Reconciliation, Counter>::default();
        registry.register(
            "ofa_operator_reconciliations",
            "Reconciliations of single resources since the start, by kind and result",
            reconciliations.clone(),
        );
        let leader = Gauge::default();
        registry.register(
            "ofa_operator_leader",
            "1 while this operator is the one that acts",
            leader.clone(),
        );
        Self {
            registry: Arc::new(registry),
            passes,
            passed: Arc::default(),
            reconciliations,
            leader,
            pending: Arc::default(),
        }
    }
}

impl Metrics {
    /// A pass over all resources is done.
    pub fn passed(&self) {
        self.passes.inc();
        self.passed.store(true, Ordering::Relaxed);
    }

    /// A resource of this kind was reconciled; `done` unless it is to be tried again.
    pub fn reconciled(&self, kind: &str, done: bool) {
        let result = if done { "done" } else { "failed" };
        let kind = kind.to_owned();
        self.reconciliations
            .get_or_create(&Reconciliation { kind, result })
            .inc();
    }

    /// Whether this operator is the one that acts.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// What keeps the operator from working; nothing makes it ready.
    pub fn pending(&self, what: Vec<String>) {
        if what.is_empty() {
            self.passed.store(true, Ordering::Relaxed);
        }
        *self.pending.lock() = what;
    }

    /// What keeps the operator from working, for people.
    #[must_use]
    pub fn why_not_ready(&self) -> String {
        let pending = self.pending.lock();
        if pending.is_empty() {
            "the resources have not been looked at yet".to_owned()
        } else {
            pending.join("\n")
        }
    }

    /// Whether a first pass is done.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// All metrics in the text format of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
