//! The command line.

use clap::{Parser, Subcommand};
use ofa_forwarder::{DeriveArgs, ForwardArgs, derive, forward};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The data plane of OpenFactory's fan-out layer
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    /// trace, debug, info, warn or error, or a filter such as info,librdkafka=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads Kafka and publishes each event on its asset's NATS shard
    Forward(Box<ForwardArgs>),
    /// Reads Kafka and writes each group's events to a topic of its own
    Derive(Box<DeriveArgs>),
}

impl Cli {
    /// Runs the command until it ends or the process is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { log_level, command } = self;
        let filter = EnvFilter::try_new(log_level.to_lowercase())?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        // Two: one for the shards' sockets, one for whatever else there is; the pump has its own thread.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let stop = stop_on_signal()?;
            match command {
                Command::Forward(args) => Ok(forward(*args, stop).await?),
                Command::Derive(args) => Ok(derive(*args, stop).await?),
            }
        })
    }
}

/// A token that SIGTERM or Ctrl-C cancels.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}
