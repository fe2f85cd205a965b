//! The command line.

use std::time::Duration;

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
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_writer(std::io::stderr)
            .init();
        // Two, so that probes are answered whatever else there is to do; the pump has a thread of its own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let result = runtime.block_on(async {
            let stop = stop_on_signal()?;
            tokio::select! {
                result = run(command, stop.clone()) => result,
                () = overdue(&stop) => anyhow::bail!(
                    "not stopped within {} s of the signal, probably since Kafka does not answer; what was not committed is sent again",
                    STOP_WITHIN.as_secs()
                ),
            }
        });
        // A thread that waits for Kafka must not hold up the end.
        runtime.shutdown_background();
        result
    }
}

/// Longest orderly stop: under the 20 s and more that platforms leave before they kill, and longer than
/// shards need to confirm what is on its way.
const STOP_WITHIN: Duration = Duration::from_secs(15);

async fn run(command: Command, stop: CancellationToken) -> anyhow::Result<()> {
    match command {
        Command::Forward(args) => Ok(forward(*args, stop).await?),
        Command::Derive(args) => Ok(derive(*args, stop).await?),
    }
}

/// Returns when an orderly stop has taken too long.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_WITHIN).await;
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
