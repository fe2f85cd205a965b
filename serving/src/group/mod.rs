//! A group's service: its derived topic as server-sent events, and the latest values of its assets.
//!
//! There are two feeds of the same events and ids. Through NATS ([`nats`]) an instance takes in what its own clients watch.
//! Otherwise it reads the topic, as follows.
//!
//! One reader takes the topic in ([`reader`]); each event is encoded once ([`frame`]) and handed to the queues of
//! those who watch its asset ([`hub`], [`queue`]). A client that comes back with the id of the last event it
//! has seen ([`position`]) gets what it missed from memory ([`ring`]) or from Kafka ([`crate::range`]) and then goes
//! on live ([`stream`]), so neither a broken connection nor a restart of this service loses anything for it.

mod api;
mod arrivals;
mod awake;
mod frame;
mod group_header;
mod hub;
mod moved;
mod nats;
mod position;
mod queue;
mod reader;
mod ring;
mod seen;
mod settings;
mod stream;
mod trail;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub(crate) use group_header::{GROUP_HEADER, TOPICS_HEADER, in_header};
pub use settings::GroupArgs;

use crate::http;
use crate::metrics::Metrics;
use crate::range::RangeReader;
use crate::state::{State, StateStore};
use api::{App, Feed};
use moved::Moves;
use nats::NatsFeed;
use reader::{Reader, Reads, Status};

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
    let nats = args.nats.client(args.member_name())?;
    let nats = nats.map(|client| {
        let metrics = Arc::clone(&metrics);
        NatsFeed::start(client, &topic, args.limits(), metrics, &stop)
    });
    let ksql = args.ksql_state()?;
    // What neither streams nor the state are made from is not read.
    let reads = match (&nats, &ksql) {
        (None, _) => Some(Reads::EventsAndState),
        (Some(_), None) => Some(Reads::State),
        (Some(_), Some(_)) => None,
    };
    let reading = reads.map(|reads| reading(&args, reads, &metrics, &stop));
    let (reader, status, store) = match reading.transpose()? {
        Some((reader, status, store)) => (Some(reader), Some(status), Some(store)),
        None => (None, None, None),
    };
    let (used, asked) = (Arc::new(awake::Use::default()), Arc::new(Notify::new()));
    let app = App {
        group: args.group.clone(),
        topic: topic.as_str().into(),
        feed: nats.map_or(Feed::Topic, Feed::Nats),
        status,
        asked: Arc::clone(&asked),
        ranges: RangeReader::start(&args.kafka)?,
        moves: Moves::start(&args.kafka)?,
        state: State { local: store, ksql },
        used: Arc::clone(&used),
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    if let Some(keep_awake) = args.keep_awake()? {
        tokio::spawn(keep_awake.run(used, metrics, stop.clone()));
    }
    info!(group = %args.group, topic, address = %listener.local_addr()?, "the group's service listens");
    let app = api::app(app);
    let Some(reader) = reader else {
        let end = async {
            shutdown.await;
            stop.cancel();
        };
        http::serve(listener, app, end).await;
        return Ok(());
    };
    let may_read = (reads == Some(Reads::State)).then_some((asked, stop.clone()));
    let read = move || match may_read {
        Some((asked, stop)) if !is_asked(&asked, &stop) => Ok(()),
        _ => reader.run(),
    };
    http::serve_while_reading(listener, app, read, stop, shutdown).await
}

/// Waits until somebody asks for the state; false when told to stop before. Blocks.
fn is_asked(asked: &Notify, stop: &CancellationToken) -> bool {
    let asked = stop.run_until_cancelled(asked.notified());
    Handle::current().block_on(asked).is_some()
}

/// What reads the topic, what it says, and the state that it keeps.
type Reading = (Reader, watch::Receiver<Status>, Arc<StateStore>);

fn reading(
    args: &GroupArgs,
    reads: Reads,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> anyhow::Result<Reading> {
    let topic = args.topic();
    let store = Arc::new(StateStore::open(args.state_dir.as_deref(), &topic)?);
    store.write_in_background()?;
    let (reader, status) = Reader::new(
        &args.kafka,
        (&topic, reads),
        Arc::clone(&store),
        args.limits(),
        Arc::clone(metrics),
        stop.clone(),
    )?;
    Ok((reader, status, store))
}
