//! `forwarder derive`: each group's events on a Kafka topic of its own. The native stream engine.
//!
//! One pass over the source serves all groups, whatever their number: each record's asset is looked up in the
//! UNS map, which is read completely before the first record and followed from then on, and the record is
//! written to its group's topic. As with ksqlDB's join of a stream and a table, a record gets the group that
//! its asset has when it is read; an asset that moves does so from that record on.
//!
//! A derived record has the key, time stamp, headers and, unless `--format ksqldb` is set, the very value of
//! its source, and stands on the partition of the same number (modulo the derived topic's partitions). So the
//! order of an asset's events on a partition is kept, whatever partitioner its producer uses.
//!
//! Behind the source's headers there is `Ofa-Source`, the cursor of the source's record: by it an asset's events in the
//! topics of several groups, where it has been one after the other, are put in order. An asset's first record in another group
//! has `Ofa-Moved-From` too, the topic of the group before: who reads on from there knows what else there is to read.
//!
//! # Exactly once
//! Derived records and the source's offsets are committed in one Kafka transaction, which carries the generation
//! of the consumer group: a member that was thought dead can neither add records nor move offsets once its
//! partitions are another's. The alternative, idempotent writes with the source's position in a header and a look
//! at the ends of all derived topics after a restart, costs no commits, but nothing fences a member that
//! comes back from a pause (or a request of a killed one still on its way), so it cannot promise that nothing is
//! written twice; and its restart reads one record for each group and partition. A transaction's price is one
//! marker in each partition written to since the last commit, at most one for each batch of records, and that
//! readers with `isolation.level=read_committed` (librdkafka's default) see events when they are committed: after
//! the commit interval while the source is quiet, up to a second in a backlog.
//!
//! That price is the brokers', and at a fixed interval it would grow with the groups that have events within it, times
//! the partitions. So the interval grows instead (`pump/mod.rs`, `PACE`): the markers of a second are as many for 1,000
//! groups as for 25, and what grows is the time until readers see an event. Derived topics with few partitions keep that
//! short: `DERIVED_PARTITIONS=1` has 1,000 busy groups' events committed every second or two.
//!
//! A transaction that takes longer than Kafka allows (`TRANSACTION_TIMEOUT_MS`), since the brokers are slow or this process was
//! frozen, is ended by Kafka, which wants nothing more of its producer. A new one under the same name then goes on behind what is
//! committed (`writer.rs`), unless another process may have taken the name: that must not go on.

mod changelog;
#[cfg(test)]
mod golden;
mod group_topics;
mod map_reader;
mod metrics;
mod output;
mod positions;
mod pump;
mod route;
mod settings;
mod table;
mod topics;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use output::Format;
pub use settings::DeriveArgs;

use crate::consume::{GroupProtocol, Source, SourceError, SourceSettings};
use crate::forward::open_source;
use crate::health::Health;
use crate::http;
use crate::metrics::Metrics;
use crate::produce::ProducerSettings;
use crate::settings::member_name;
use changelog::Changelog;
use group_topics::GroupTopics;
use metrics::DeriveMetrics;
use pump::{Pump, State};
use table::JoinTable;
use topics::{TopicSettings, Topics};
use writer::{WriteError, Writer};

/// Why the deriving of streams ended.
#[derive(Debug, Error)]
pub enum DeriveError {
    /// Kafka cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Kafka cannot be written.
    #[error(
        "derived topics cannot be written: {0}; start this program again, and give each member of the group an APP_UUID of its own"
    )]
    Write(String),
    /// The address to answer on is not to be had.
    #[error("cannot listen on {address}: {source}; choose another with PORT and BIND_ADDRESS")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The thread that derives broke down.
    #[error("the main thread broke down; this is a defect, please report it with the log")]
    Broken,
}

impl From<WriteError> for DeriveError {
    fn from(error: WriteError) -> Self {
        Self::Write(error.to_string())
    }
}

/// Derives streams until `stop`.
///
/// # Errors
/// When it cannot start, or Kafka's client reports a fatal error: the process is to be started again.
pub async fn run(args: DeriveArgs, stop: CancellationToken) -> Result<(), DeriveError> {
    let member = member_name(args.member.as_deref());
    let address = SocketAddr::new(args.bind, args.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| DeriveError::Listen { address, source })?;
    let (metrics, health) = (Metrics::new(&member), Arc::new(Health::new()));
    let derived = Arc::new(DeriveMetrics::default());
    metrics.extend(|registry| derived.register(registry));
    // The probes answer until the very end, hence a token of their own.
    let served = CancellationToken::new();
    tokio::spawn(http::serve(
        listener,
        metrics.clone(),
        health.clone(),
        served.clone(),
    ));
    info!(member, %address, topic = args.topic, group = args.group, level = args.level, "deriving of streams starting");

    let result = match open_source(&source_settings(&args, &member), &health, &stop).await {
        Ok(None) => Ok(()),
        Ok(Some(source)) => derive(&args, &member, source, metrics, derived, health, stop).await,
        Err(error) => Err(error.into()),
    };
    served.cancel();
    result
}

async fn derive(
    args: &DeriveArgs,
    member: &str,
    source: Source,
    metrics: Arc<Metrics>,
    derived: Arc<DeriveMetrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<(), DeriveError> {
    let topics = TopicSettings {
        source: args.topic.clone(),
        partitions: args.partitions,
        retention_ms: args.retention_ms,
    };
    let producer = ProducerSettings {
        kafka: args.kafka.clone(),
        transactional_id: format!("{}-{member}", args.group),
        consumer_group: args.group.clone(),
        transaction_timeout: Duration::from_millis(args.transaction_timeout_ms),
    };
    let changelog = changelog::topic(&args.group);
    let pump = Pump {
        runtime: Handle::current(),
        source,
        topic: args.topic.clone(),
        map: map_reader::follow(&args.kafka, &args.map_topic, stop.clone())?,
        table: JoinTable::new(args.strategy()),
        topics: GroupTopics::new(
            Topics::new(&args.kafka, topics, Handle::current())?,
            args.derived_topic
                .clone()
                .filter(|_| args.values.len() == 1),
            changelog.clone(),
        ),
        changelog: Changelog::new(&args.kafka, &changelog)?,
        writer: Writer::new(producer, health.clone(), Handle::current(), stop.clone())
            .map_err(SourceError::from)?,
        format: args.format,
        commit_interval: Duration::from_millis(args.commit_interval_ms),
        metrics,
        derived,
        health,
        stop,
        state: State::new(),
    };
    // The pump calls librdkafka, which blocks: a thread of its own.
    let thread = tokio::task::spawn_blocking(move || pump.run());
    thread.await.map_err(|_| DeriveError::Broken)?
}

fn source_settings(args: &DeriveArgs, member: &str) -> SourceSettings {
    SourceSettings {
        kafka: args.kafka.clone(),
        topic: args.topic.clone(),
        group: args.group.clone(),
        protocol: GroupProtocol::Classic,
        offset_reset: args.offset_reset.clone(),
        client_id: member.to_owned(),
    }
}
