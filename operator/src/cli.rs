//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ofa_crds::control;
use ofa_crds::kafka::KafkaSettings;

use crate::controllers::KsqlDbSettings;
use crate::kube::KubernetesArgs;
use crate::plan;
use crate::platform::swarm::SwarmArgs;
use crate::run::{self, RunError};
use crate::status_table;

/// Image of the forwarders unless settings or a pool name another.
const FORWARDER_IMAGE: &str = concat!("openfactory-fanout/forwarder:", env!("CARGO_PKG_VERSION"));

/// Image of groups' services unless settings or a group name another.
const SERVING_IMAGE: &str = concat!("openfactory-fanout/serving:", env!("CARGO_PKG_VERSION"));

/// Reconciles AssetGroup, NatsShard and ForwarderPool onto a platform.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a platform what a folder of resources describes, and keeps it so
    Run(Box<RunArgs>),
    /// Prints the resources as `kubectl get` would
    Status(StatusArgs),
    /// Tells what a folder of resources would change: what restarts, which share of the assets moves
    Plan(PlanArgs),
}

/// Where workloads run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlatformKind {
    /// Processes of this machine.
    Local,
    /// The Kubernetes API of the cluster around it, or of KUBECONFIG.
    Kubernetes,
    /// A Docker Swarm.
    Swarm,
}

/// `operator run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where workloads run
    #[arg(long, value_enum, default_value = "local")]
    pub platform: PlatformKind,
    /// Folder with the YAML of the resources; it is watched. On Kubernetes they are in its API
    #[arg(long, required_if_eq_any([("platform", "local"), ("platform", "swarm")]))]
    pub resources: Option<PathBuf>,
    /// Where state is kept
    #[command(flatten)]
    pub state: StateArgs,
    /// Leaves all processes running at the end; the next run takes them over
    #[arg(long)]
    pub keep: bool,
    /// Ends, as by SIGTERM, when the process that started it has ended, however that came about
    #[arg(long)]
    pub exit_with_parent: bool,
    /// Address for /metrics, /live and /ready, 127.0.0.1:9090 for example
    #[arg(long, env = "OFA_LISTEN")]
    pub listen: Option<std::net::SocketAddr>,
    /// Kafka topic that shard maps travel on
    #[arg(long, env = "SHARD_MAP_TOPIC", default_value = control::DEFAULT_TOPIC)]
    pub control_topic: String,
    /// Image of the forwarders where a pool names none
    #[arg(long, env = "OFA_FORWARDER_IMAGE", default_value = FORWARDER_IMAGE)]
    pub forwarder_image: String,
    /// Image of groups' services where a group names none
    #[arg(long, env = "OFA_SERVING_IMAGE", default_value = SERVING_IMAGE)]
    pub serving_image: String,
    /// ksqlDB
    #[command(flatten)]
    pub ksqldb: KsqlDbSettings,
    /// On Kubernetes
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
    /// On a Docker Swarm
    #[command(flatten)]
    pub swarm: SwarmArgs,
    /// How to reach Kafka where a resource does not say
    #[command(flatten)]
    pub kafka: KafkaSettings,
    /// error, warn, info, debug or trace, for everything or by module
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Logs as JSON, one object a line
    #[arg(long, env = "LOG_JSON")]
    pub log_json: bool,
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// Folder with the YAML of the resources
    #[arg(long)]
    resources: PathBuf,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    state: StateArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables.
    Table,
    /// Tables with more columns.
    Wide,
    /// One JSON object with all resources, instances and problems.
    Json,
}

/// Where state is kept.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Directory for what must survive a restart of the operator
    #[arg(long, env = "OFA_STATE_DIR", default_value_os_t = default_state_dir())]
    pub state_dir: PathBuf,
}

/// Where state is kept unless somebody says otherwise: as the XDG Base Directory Specification has it.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("openfactory-fanout")
}

impl Cli {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// With what to do about it.
    pub async fn run(self) -> Result<(), RunError> {
        match self.command {
            Command::Run(args) => run::run(*args).await,
            Command::Plan(PlanArgs { resources, state }) => {
                plan::print(&state.state_dir, &resources).map_err(RunError::State)
            }
            Command::Status(StatusArgs { state, output }) => {
                status_table::print(&state.state_dir, output).map_err(RunError::State)
            }
        }
    }
}
