//! The replay service: for clients of NATS, what they missed.
//!
//! NATS keeps nothing for a subscriber whose node dies. A client that comes back asks here for everything from its
//! last position up to now ([`api`]; the protocol is [`ofa_crds::replay`]), and gets each event as forwarders
//! publish it ([`encode`]). One reader keeps the newest events of all partitions in memory ([`tail`],
//! [`ring`]); what is older is read from Kafka once for all who ask ([`crate::range`]). *Now* is the end of the topic
//! as Kafka tells it after the question came ([`heads`]), so an answer has everything that a forwarder can have
//! published before.
//!
//! Whoever reads all partitions sees which assets have events on two of them ([`mixed`]).
//!
//! The service keeps nothing on disk: any number of replicas can stand behind one name, and any of them answers.

mod answer;
mod api;
mod encode;
mod heads;
mod lanes;
mod mixed;
mod record;
mod ring;
mod settings;
mod tail;

use std::sync::Arc;

use ofa_crds::kafka::ControlTopic;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use settings::ReplayArgs;

use crate::metrics::Metrics;
use crate::range::RangeReader;
use crate::{http, router};
use answer::Sources;
use api::App;
use heads::Heads;
use tail::{Reader, Status};

/// Serves on `listener` until `shutdown` completes.
///
/// # Errors
/// When the settings are unusable, or the topic cannot be read any more.
pub async fn run(
    listener: TcpListener,
    args: ReplayArgs,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::new("replay"));
    let unread = format!("the topic {} is not read yet", args.topic);
    let (sender, status) = watch::channel(Status::NotReady(unread));
    let routing = router::look(&args.kafka, &args.map, &metrics)?;
    let (reports, found) = watch::channel(None);
    let control = ControlTopic::new(&args.kafka, &args.map.shard_map_topic)?;
    tokio::spawn(mixed::tell(control, routing.clone(), found, stop.clone()));
    let reader = Reader {
        consumer: Reader::consumer(&args.kafka)?,
        topic: args.topic.clone(),
        bytes: args.memory(),
        status: sender,
        reports,
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    let app = App {
        sources: Sources {
            topic: args.topic.as_str().into(),
            format: args.payload,
            heads: Heads::start(&args.kafka, &args.topic)?,
            ranges: RangeReader::start(&args.kafka)?,
            metrics: Arc::clone(&metrics),
        },
        status,
        routing,
        stop: stop.clone(),
    };
    info!(topic = args.topic, address = %listener.local_addr()?, "the replay service listens");
    let read = move || reader.run();
    http::serve_while_reading(listener, api::app(app), read, stop, shutdown).await
}
