//! What the operator measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The operator's registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    passes: Counter,
    passed: Arc<AtomicBool>,
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
        Self {
            registry: Arc::new(registry),
            passes,
            passed: Arc::default(),
        }
    }
}

impl Metrics {
    /// A pass over all resources is done.
    pub fn passed(&self) {
        self.passes.inc();
        self.passed.store(true, Ordering::Relaxed);
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
