//! What a forwarder tells about itself. The first group has OpenFactory's names, on which its recording
//! rules depend; the second is this project's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::publish::{Batch, WitnessMode};
use crate::route::Poison;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForwarderLabel {
    forwarder: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Poison,
}

/// Seconds: from well under a millisecond, as on a quiet machine, to a shard's outage.
const BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// All metrics of the process.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    consumed: Counter,
    kafka_errors: Counter,
    invalid: Counter,
    queue_time: Histogram,
    latency: Histogram,
    published: Family<ClusterLabel, Counter>,
    publish_failures: Family<ClusterLabel, Counter>,
    confirmed: Family<ClusterLabel, Counter>,
    witness_mode: Family<ClusterLabel, Gauge>,
    isolated: Family<ClusterLabel, Gauge>,
    poison: Family<KindLabel, Counter>,
    committed: Family<PartitionLabel, Gauge<i64, AtomicI64>>,
    lag: Family<PartitionLabel, Gauge<i64, AtomicI64>>,
    epoch: Gauge<u64, AtomicU64>,
    rebalances: Counter,
}

impl Metrics {
    pub(crate) fn new(forwarder: &str) -> Arc<Self> {
        let mut registry = Registry::default();
        let label = || Family::<ForwarderLabel, Counter>::default();
        let of = ForwarderLabel {
            forwarder: forwarder.to_owned(),
        };
        let (consumed, kafka_errors, invalid) = (label(), label(), label());
        let histogram = || {
            Family::<ForwarderLabel, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS))
        };
        let (queue_time, latency) = (histogram(), histogram());
        let metrics = Self {
            consumed: consumed.get_or_create_owned(&of),
            kafka_errors: kafka_errors.get_or_create_owned(&of),
            invalid: invalid.get_or_create_owned(&of),
            queue_time: queue_time.get_or_create_owned(&of),
            latency: latency.get_or_create_owned(&of),
            published: Family::default(),
            publish_failures: Family::default(),
            confirmed: Family::default(),
            witness_mode: Family::default(),
            isolated: Family::default(),
            poison: Family::default(),
            committed: Family::default(),
            lag: Family::default(),
            epoch: Gauge::default(),
            rebalances: Counter::default(),
            registry: Mutex::new(Registry::default()),
        };
        let r = &mut registry;
        r.register(
            "asset_forwarder_kafka_messages_consumed",
            "Records taken from Kafka",
            consumed,
        );
        r.register(
            "asset_forwarder_kafka_errors",
            "Errors that Kafka's client reported",
            kafka_errors,
        );
        r.register(
            "asset_forwarder_invalid_messages",
            "Records that could not be forwarded",
            invalid,
        );
        r.register(
            "asset_forwarder_queue_time_seconds",
            "From Kafka's client to NATS, once a batch",
            queue_time,
        );
        r.register(
            "asset_forwarder_message_processing_latency_seconds",
            "From Kafka's client to the witness, once a batch",
            latency,
        );
        r.register(
            "asset_forwarder_nats_messages_published",
            "Messages published, those sent again included",
            metrics.published.clone(),
        );
        r.register(
            "asset_forwarder_nats_publish_failures",
            "Sessions with a shard that failed",
            metrics.publish_failures.clone(),
        );
        let build = Info::new(vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            (
                "swarm_node",
                std::env::var("SWARM_NODE").unwrap_or_default(),
            ),
        ]);
        r.register(
            "fan_out_layer_forwarder_build",
            "The forwarder's build",
            build,
        );
        r.register(
            "asset_forwarder_nats_messages_confirmed",
            "Messages that the shard has for good",
            metrics.confirmed.clone(),
        );
        r.register(
            "asset_forwarder_witness_mode",
            "Nodes that confirm: 2 a second node, 1 the same node only, 0 no connection",
            metrics.witness_mode.clone(),
        );
        r.register(
            "asset_forwarder_shard_behind",
            "1 while the shard is away or catching up and the others go on without it",
            metrics.isolated.clone(),
        );
        r.register(
            "asset_forwarder_poison_records",
            "Records that could not be forwarded, by reason",
            metrics.poison.clone(),
        );
        r.register(
            "asset_forwarder_committed_offset",
            "Offset to go on from after a restart",
            metrics.committed.clone(),
        );
        r.register(
            "asset_forwarder_lag",
            "Records between that offset and the partition's end",
            metrics.lag.clone(),
        );
        r.register(
            "asset_forwarder_shard_map_epoch",
            "Epoch of the shard map in force",
            metrics.epoch.clone(),
        );
        r.register(
            "asset_forwarder_rebalances",
            "Changes of the assigned partitions",
            metrics.rebalances.clone(),
        );
        *metrics.registry.lock() = registry;
        Arc::new(metrics)
    }

    /// Adds metrics of a part of the program that not every process runs.
    pub(crate) fn extend(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// All metrics in OpenMetrics' text format.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }

    pub(crate) fn consumed(&self, records: u64) {
        self.consumed.inc_by(records);
    }

    pub(crate) fn kafka_error(&self) {
        self.kafka_errors.inc();
    }

    pub(crate) fn poison(&self, kind: Poison) {
        self.invalid.inc();
        self.poison.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn published(&self, cluster: &str, batch: &Batch) {
        self.queue_time
            .observe(batch.began().elapsed().as_secs_f64());
        self.published
            .get_or_create(&of_cluster(cluster))
            .inc_by(batch.messages().into());
    }

    pub(crate) fn confirmed(&self, cluster: &str, batch: &Batch) {
        self.latency.observe(batch.began().elapsed().as_secs_f64());
        self.confirmed
            .get_or_create(&of_cluster(cluster))
            .inc_by(batch.messages().into());
    }

    pub(crate) fn publish_failure(&self, cluster: &str) {
        self.publish_failures
            .get_or_create(&of_cluster(cluster))
            .inc();
    }

    pub(crate) fn set_witness_mode(&self, cluster: &str, mode: Option<WitnessMode>) {
        let nodes = match mode {
            Some(WitnessMode::SecondNode) => 2,
            Some(WitnessMode::SameNode) => 1,
            None => 0,
        };
        self.witness_mode
            .get_or_create(&of_cluster(cluster))
            .set(nodes);
    }

    pub(crate) fn set_isolated(&self, cluster: &str, isolated: bool) {
        self.isolated
            .get_or_create(&of_cluster(cluster))
            .set(isolated.into());
    }

    pub(crate) fn remove_cluster(&self, cluster: &str) {
        self.witness_mode.remove(&of_cluster(cluster));
        self.isolated.remove(&of_cluster(cluster));
    }

    pub(crate) fn rebalanced(&self) {
        self.rebalances.inc();
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.set(epoch);
    }

    pub(crate) fn set_position(&self, partition: i32, committed: i64, end: Option<i64>) {
        let label = PartitionLabel { partition };
        self.committed.get_or_create(&label).set(committed);
        if let Some(end) = end {
            self.lag.get_or_create(&label).set((end - committed).max(0));
        }
    }

    pub(crate) fn remove_partition(&self, partition: i32) {
        self.committed.remove(&PartitionLabel { partition });
        self.lag.remove(&PartitionLabel { partition });
    }
}

fn of_cluster(cluster: &str) -> ClusterLabel {
    ClusterLabel {
        cluster: cluster.to_owned(),
    }
}
