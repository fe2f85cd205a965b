//! All metrics of the HTTP side.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Bounds in seconds: a lookup takes microseconds, a proxied or woken service up to seconds.
const DURATION_BOUNDS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0];

/// What is counted by route and answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// Where events that are sent again came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReplaySource {
    /// The newest events, kept in memory.
    Memory,
    /// Older ones.
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: ReplaySource,
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    shard_map_epoch: Gauge,
    shards: Gauge,
    streams: Gauge,
    events: Counter,
    slow_clients: Counter,
    passed_over: Counter,
    replayed: Family<SourceLabels, Counter>,
    replay_gaps: Counter,
    replay_memory: Gauge,
    mixed_assets: Gauge,
}

/// Counts an open stream until dropped.
pub struct StreamGuard(Gauge);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers everything, under the service's name.
    #[must_use]
    pub fn new(service: &'static str) -> Self {
        let mut registry = Registry::with_prefix("serving");
        let requests = Family::default();
        let durations =
            Family::new_with_constructor((|| Histogram::new(DURATION_BOUNDS)) as fn() -> Histogram);
        let (shard_map_epoch, shards) = (Gauge::default(), Gauge::default());
        registry.register(
            "http_requests",
            "Requests answered, by route and status",
            Family::clone(&requests),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's headers to its answer's headers",
            durations.clone(),
        );
        registry.register(
            "shard_map_epoch",
            "Epoch of the shard map that answers follow; 0 while none is known",
            shard_map_epoch.clone(),
        );
        registry.register(
            "shards",
            "Shards of the shard map that answers follow",
            shards.clone(),
        );
        let (streams, events) = (Gauge::default(), Counter::default());
        let (slow_clients, passed_over) = (Counter::default(), Counter::default());
        registry.register(
            "streams",
            "Clients that stream at the moment",
            streams.clone(),
        );
        registry.register(
            "stream_events",
            "Events handed to the queues of clients",
            events.clone(),
        );
        registry.register(
            "slow_clients",
            "Clients that fell behind: disconnected, to resume by themselves, or left out until they take something again",
            slow_clients.clone(),
        );
        registry.register(
            "passed_over_records",
            "Records without asset or value, which are nobody's event",
            passed_over.clone(),
        );
        let replayed = Family::<SourceLabels, Counter>::default();
        let (replay_gaps, replay_memory) = (Counter::default(), Gauge::default());
        registry.register(
            "replayed_events",
            "Events sent again to clients that missed them, by where they came from",
            replayed.clone(),
        );
        registry.register(
            "replay_gaps",
            "Gaps told to clients since Kafka's retention had taken what they asked for",
            replay_gaps.clone(),
        );
        registry.register(
            "replay_memory_bytes",
            "Bytes of events kept for clients that come back",
            replay_memory.clone(),
        );
        let mixed_assets = Gauge::default();
        registry.register(
            "assets_on_two_partitions",
            "Assets whose producers place keys by different rules, so that the order of their events holds on each partition only",
            mixed_assets.clone(),
        );
        let build = Info::new([("service", service), ("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", build);
        Self {
            registry,
            requests,
            durations,
            shard_map_epoch,
            shards,
            streams,
            events,
            slow_clients,
            passed_over,
            replayed,
            replay_gaps,
            replay_memory,
            mixed_assets,
        }
    }

    /// Counts a stream as open for as long as the guard lives.
    #[must_use]
    pub fn stream_opened(&self) -> StreamGuard {
        self.streams.inc();
        StreamGuard(self.streams.clone())
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> i64 {
        self.streams.get()
    }

    /// Counts events handed to clients' queues, and clients that fell behind.
    pub fn delivered(&self, events: u64, slow_clients: u64) {
        self.events.inc_by(events);
        self.slow_clients.inc_by(slow_clients);
    }

    /// Counts a record that is nobody's event.
    pub fn passed_over(&self) {
        self.passed_over.inc();
    }

    /// Counts events sent again.
    pub fn replayed(&self, source: ReplaySource, events: usize) {
        self.replayed
            .get_or_create(&SourceLabels { source })
            .inc_by(events as u64);
    }

    /// Counts a gap that a client was told.
    pub fn replay_gap(&self) {
        self.replay_gaps.inc();
    }

    /// Notes how many assets were found on two partitions.
    pub fn mixed_assets(&self, assets: u64) {
        self.mixed_assets
            .set(i64::try_from(assets).unwrap_or(i64::MAX));
    }

    /// Notes how much is kept in memory.
    pub fn replay_memory(&self, bytes: usize) {
        self.replay_memory
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts one answer. `route` is the path's pattern, never the path itself.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        self.durations
            .get_or_create(&RouteLabels {
                route: route.clone(),
            })
            .observe(took.as_secs_f64());
        self.requests
            .get_or_create(&RequestLabels { route, status })
            .inc();
    }

    /// Notes which shard map answers follow from now on; epoch 0 and no shards for none.
    pub fn follows(&self, epoch: u64, shards: usize) {
        self.shard_map_epoch
            .set(i64::try_from(epoch).unwrap_or(i64::MAX));
        self.shards.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only if formatting fails.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
