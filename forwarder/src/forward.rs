//! `forwarder forward`: puts the stages together and runs them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ofa_crds::ShardMap;
use ofa_crds::kafka::ControlError;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::consume::{Source, SourceError, SourceSettings};
use crate::credentials::Credentials;
use crate::dead_letters::DeadLetters;
use crate::health::Health;
use crate::http;
use crate::maps::{first_map, follow_map};
use crate::metrics::Metrics;
use crate::pump::{Pump, Reactor, State};
use crate::route::Encoder;
use crate::settings::{ForwardArgs, SettingsError, member_name};
use crate::shards::{ShardFactory, Shards};

/// How long to wait before Kafka is asked again for a topic that is not there.
const RETRY: Duration = Duration::from_secs(2);

/// Why the forwarder ended.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Kafka cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The shard map cannot be followed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The address to answer on is not to be had.
    #[error("cannot listen on {address}: {source}; choose another with PORT and BIND_ADDRESS")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system has no room for sockets.
    #[error("cannot open sockets: {0}; raise the limit of open files")]
    Reactor(std::io::Error),
    /// The thread that drives the stages broke down.
    #[error(
        "the forwarder's main thread broke down; this is a defect, please report it with the log"
    )]
    Broken,
}

/// Runs a forwarder until `stop`.
///
/// # Errors
/// When it cannot start, or Kafka's client reports a fatal error: the process is to be started again.
pub async fn run(args: ForwardArgs, stop: CancellationToken) -> Result<(), ForwardError> {
    let member = member_name(args.member.as_deref());
    let static_map = args.static_map(std::env::vars())?;
    let address = SocketAddr::new(args.bind, args.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ForwardError::Listen { address, source })?;
    let (metrics, health) = (Metrics::new(&member), Arc::new(Health::new()));
    // The probes answer until the very end, hence a token of their own.
    let served = CancellationToken::new();
    tokio::spawn(http::serve(
        listener,
        metrics.clone(),
        health.clone(),
        served.clone(),
    ));
    info!(member, %address, topic = args.topic, group = args.group, "forwarder starting");

    let (in_force, epochs) = mpsc::unbounded_channel();
    let maps = match static_map {
        Some(map) => watch::channel(Some(map)).1,
        None => follow_map(&args, &member, epochs, stop.clone())?,
    };
    let maps = Maps {
        newest: maps,
        in_force,
    };
    // A thread of its own: the pump calls librdkafka, which blocks.
    let thread = tokio::task::spawn_blocking(move || {
        let reactor = Reactor::new().map_err(ForwardError::Reactor)?;
        let result = forward(&reactor, &args, member, maps, metrics, health, stop);
        reactor.close();
        result
    });
    let result = thread.await.map_err(|_| ForwardError::Broken);
    served.cancel();
    result?
}

/// The shard maps as they come, and who is told which is in force.
struct Maps {
    newest: watch::Receiver<Option<Arc<ShardMap>>>,
    in_force: mpsc::UnboundedSender<u64>,
}

fn forward(
    reactor: &Reactor,
    args: &ForwardArgs,
    member: String,
    maps: Maps,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> Result<(), ForwardError> {
    let settings = SourceSettings {
        kafka: args.kafka.clone(),
        topic: args.topic.clone(),
        group: args.group.clone(),
        protocol: args.group_protocol,
        offset_reset: args.offset_reset.clone(),
        client_id: member.clone(),
    };
    let Maps {
        newest: mut maps,
        in_force,
    } = maps;
    let Some(map) = reactor.block_on(first_map(&mut maps, &health, &stop)) else {
        return Ok(());
    };
    let Some(source) = reactor.block_on(open_source(&settings, &health, &stop))? else {
        return Ok(());
    };
    let _entered = reactor.enter();
    let (confirmations, confirmed) = mpsc::unbounded_channel();
    let dead_letters = args
        .dead_letter_topic
        .as_ref()
        .map(|topic| DeadLetters::start(&args.kafka, &args.topic, topic, confirmations.clone()));
    let dead_letters = dead_letters.transpose()?;
    let epoch = map.epoch();
    let factory = ShardFactory {
        pool: args.pool.clone(),
        member,
        credentials: Credentials::new(args.credentials.as_deref()),
        confirmed: confirmations,
        metrics: metrics.clone(),
    };
    let shards = Shards::new(factory, map);
    let _ = in_force.send(epoch);
    let encoder = Encoder::new(&args.topic, args.payload);
    let state = State::new();
    let pump = Pump {
        reactor,
        source,
        encoder,
        shards,
        dead_letters,
        confirmed,
        maps,
        in_force,
        metrics,
        health,
        stop,
        state,
    };
    Ok(pump.run()?)
}

/// Makes the consumer as soon as the topic is there; `None` when told to stop before.
pub(crate) async fn open_source(
    settings: &SourceSettings,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Option<Source>, SourceError> {
    let mut source = Arc::new(Source::new(settings)?);
    loop {
        let asked = source.clone();
        let checked = tokio::task::spawn_blocking(move || asked.check()).await;
        match checked {
            Ok(Ok(())) => break,
            Ok(Err(error)) => {
                warn!("{error}; trying on");
                health.pending("kafka", error.to_string());
            }
            Err(_) => {
                return Err(SourceError::Fatal(
                    "the check of the topic broke down".to_owned(),
                ));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
    health.pending("kafka", "not joined the consumer group yet".to_owned());
    loop {
        match Arc::try_unwrap(source) {
            Ok(source) => return Ok(Some(source)),
            // The check's thread is about to let go of its share.
            Err(shared) => {
                source = shared;
                tokio::task::yield_now().await;
            }
        }
    }
}
