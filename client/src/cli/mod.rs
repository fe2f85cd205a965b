//! The commands of `ofa`, one file each.

mod demo;
mod output;
mod produce;
mod route;
mod simulate;
mod stop;
mod subscribe;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Watch, feed and try out an OpenFactory fan-out layer
#[derive(Debug, Parser)]
// A wrapper may append settings of its own: what is said last counts.
#[command(version, propagate_version = true, args_override_self = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// What is logged to standard error: error, warn, info, debug, or filters by module
    #[arg(
        long,
        env = "LOG_LEVEL",
        default_value = DEFAULT_LOG_LEVEL,
        global = true
    )]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which shard has an asset
    Route(route::RouteArgs),
    /// Print the events of assets as they happen, and where some were missed
    Subscribe(subscribe::SubscribeArgs),
    /// Write events to Kafka
    Produce(produce::ProduceArgs),
    /// Run everything on this machine and watch it: broker, shards, forwarders, router and a factory
    Demo(demo::DemoArgs),
    /// Be a factory: machines that write events to Kafka
    Simulate(simulate::SimulateArgs),
}

/// What Kafka's client has to say becomes an error of our own, with what to do about it.
const DEFAULT_LOG_LEVEL: &str = "warn,rdkafka=off,librdkafka=off";

/// Which routing layer is asked
#[derive(Debug, clap::Args)]
struct RouterArgs {
    /// Address of the routing layer
    #[arg(
        long,
        env = "ASSET_ROUTER_URL",
        default_value = "http://127.0.0.1:8002",
        value_name = "URL"
    )]
    router: String,
}

impl Args {
    /// Runs the command. What went wrong is said on standard error, with what to do about it.
    pub async fn run(self) -> ExitCode {
        match self.run_command().await {
            Ok(code) => code,
            Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                output::note(format_args!("error: {}", output::in_full(&error)));
                ExitCode::FAILURE
            }
        }
    }

    async fn run_command(self) -> anyhow::Result<ExitCode> {
        let Self { command, log_level } = self;
        let filter = EnvFilter::try_new(&log_level)
            .with_context(|| format!("LOG_LEVEL '{log_level}' cannot be read; use info"))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        match command {
            Command::Route(args) => args.run().await?,
            Command::Subscribe(args) => args.run().await?,
            Command::Produce(args) => args.run().await?,
            Command::Simulate(args) => args.run().await?,
            Command::Demo(args) => return args.run().await,
        }
        Ok(ExitCode::SUCCESS)
    }
}
