//! The commands of `ofa`, one file each. Called as `kubectl-ofa`, which makes it a plugin of kubectl, it asks the cluster
//! of the current context.

mod cluster;
mod demo;
mod forward;
mod output;
mod plan;
mod produce;
mod route;
mod simulate;
mod status;
mod stop;
mod subscribe;
mod tunnel;

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use cluster::ClusterArgs;
use tunnel::Router;

/// Watch, feed and try out an OpenFactory fan-out layer
#[derive(Debug, Parser)]
// A wrapper may append settings of its own: what is said last counts.
#[command(
    name = "ofa",
    version,
    propagate_version = true,
    args_override_self = true
)]
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
    /// Show all resources: conditions, epochs, lag, and what runs for them
    Status(status::StatusArgs),
    /// Tell what a change would do: what restarts, how many assets move, which streams are made again
    Plan(plan::PlanArgs),
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

/// Where the routing layer is on this machine.
const LOCAL_ROUTER: &str = "http://127.0.0.1:8002";

/// Which routing layer is asked
#[derive(Debug, clap::Args)]
struct RouterArgs {
    /// Address of the routing layer; http://127.0.0.1:8002 if not set, and on Kubernetes a tunnel to its Service
    #[arg(long, env = "ASSET_ROUTER_URL", value_name = "URL")]
    router: Option<String>,
}

impl RouterArgs {
    /// The address that was named, or the one on this machine.
    fn url(&self) -> &str {
        self.router.as_deref().unwrap_or(LOCAL_ROUTER)
    }

    /// The way to it: as named, through the cluster, or on this machine.
    async fn reach(&self, cluster: &ClusterArgs) -> anyhow::Result<Router> {
        if self.router.is_none() && cluster.is_meant() {
            return Router::in_cluster(cluster).await;
        }
        Ok(Router::at(self.url()))
    }
}

impl Args {
    /// What the command line says; ends the process where that makes no sense, or help is asked for.
    #[must_use]
    pub fn of_process() -> Self {
        let mut command = Self::command();
        if cluster::is_plugin() {
            command = command.bin_name("kubectl ofa");
        }
        let matches = command.get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

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
            Command::Status(args) => args.run().await?,
            Command::Plan(args) => args.run().await?,
            Command::Route(args) => args.run().await?,
            Command::Subscribe(args) => args.run().await?,
            Command::Produce(args) => args.run().await?,
            Command::Simulate(args) => args.run().await?,
            Command::Demo(args) => return args.run().await,
        }
        Ok(ExitCode::SUCCESS)
    }
}
