//! A group's service: its derived topic as server-sent events, and the latest values of its assets.
//!
//! One reader takes the topic in ([`reader`]); each event is encoded once ([`frame`]) and handed to the queues of
//! those who watch its asset ([`hub`], [`queue`]). A client that comes back with the id of the last event it
//! has seen ([`position`]) gets what it missed from memory ([`ring`]) or from Kafka ([`crate::range`]) and then goes
//! on live ([`stream`]), so neither a broken connection nor a restart of this service loses anything for it.

mod api;
mod awake;
mod frame;
mod group_header;
mod hub;
mod position;
mod queue;
mod reader;
mod ring;
mod settings;
mod stream;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub(crate) use group_header::{GROUP_HEADER, in_header};
pub use settings::GroupArgs;

use crate::http;
use crate::metrics::Metrics;
use crate::range::RangeReader;
use crate::state::{State, StateStore};
use api::App;
use reader::Reader;

/// Serves a group on `listener` until `shutdown` completes.
///
/// # Errors
/// When the settings are unusable, or the topic or the state cannot be read any more.
pub async fn run(
    listener: TcpListener,
    args: GroupArgs,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let topic = args.topic();
    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::new("group"));
    let store = Arc::new(StateStore::open(args.state_dir.as_deref(), &topic)?);
    store.write_in_background()?;
    let (reader, status) = Reader::new(
        &args.kafka,
        &topic,
        Arc::clone(&store),
        args.limits(),
        Arc::clone(&metrics),
        stop.clone(),
    )?;
    let used = Arc::new(awake::Use::default());
    let app = App {
        group: args.group.clone(),
        topic: topic.as_str().into(),
        status,
        ranges: RangeReader::start(&args.kafka, &topic)?,
        state: State {
            local: store,
            ksql: args.ksql_state()?,
        },
        used: Arc::clone(&used),
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    if let Some(keep_awake) = args.keep_awake()? {
        tokio::spawn(keep_awake.run(used, metrics, stop.clone()));
    }
    info!(group = %args.group, topic, address = %listener.local_addr()?, "the group's service listens");
    let read = move || reader.run();
    http::serve_while_reading(listener, api::app(app), read, stop, shutdown).await
}
