//! The command line, and the listener every service runs on.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::group::{self, GroupArgs};
use crate::replay::{self, ReplayArgs};
use crate::router::{self, RouterArgs};
use crate::shutdown;

/// The HTTP side of the OpenFactory fan-out layer
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// What is logged: error, warn, info, debug, trace, or filters by module
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells clients which shard has an asset
    Router(RouterArgs),
    /// Streams a group's events to browsers and apps, and answers for its assets' state
    Group(GroupArgs),
    /// Sends clients of NATS again what they missed
    Replay(ReplayArgs),
}

/// Where a service listens
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Listener")]
pub struct ListenArgs {
    /// Port to listen on; 8002 for the router, 5555 for a group and 8003 for replay if not set
    #[arg(long, env = "PORT")]
    port: Option<u16>,
    /// Address to listen on
    #[arg(long, env = "BIND_ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,
}

impl ListenArgs {
    /// Opens the listener.
    ///
    /// # Errors
    /// When the address is not this machine's or the port is taken.
    pub async fn bind(&self, default_port: u16) -> anyhow::Result<TcpListener> {
        let address = SocketAddr::new(self.bind_address, self.port.unwrap_or(default_port));
        TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; stop what listens there, or choose another PORT or BIND_ADDRESS")
        })
    }
}

impl Args {
    /// Runs the chosen service until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// When the settings are unusable or the port is taken.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { command, log_level } = self;
        let filter = EnvFilter::try_new(&log_level)
            .with_context(|| format!("LOG_LEVEL '{log_level}' cannot be read; use info"))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        match command {
            Command::Router(args) => {
                let listener = args.listen.bind(RouterArgs::DEFAULT_PORT).await?;
                router::run(listener, args, shutdown::requested()).await
            }
            Command::Group(args) => {
                let listener = args.listen.bind(GroupArgs::DEFAULT_PORT).await?;
                group::run(listener, args, shutdown::requested()).await
            }
            Command::Replay(args) => {
                let listener = args.listen.bind(ReplayArgs::DEFAULT_PORT).await?;
                replay::run(listener, args, shutdown::requested()).await
            }
        }
    }
}
