//! The shell around the reconcilers that a folder of YAML feeds.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::cli::{PlatformKind, RunArgs};
use crate::controllers::control_plane::KafkaControlPlane;
use crate::controllers::news::Readers;
use crate::controllers::{Backends, Settings};
use crate::engine::ksqldb::KsqlServers;
use crate::http;
use crate::kube::lease::Timing;
use crate::kube::shell::Shell;
use crate::kube::{self, KubeError};
use crate::metrics::Metrics;
use crate::platform::kubernetes::KubernetesPlatform;
use crate::platform::local::LocalPlatform;
use crate::platform::local::store::{StateDir, StateDirError};
use crate::platform::swarm::{KeptState, SwarmError, SwarmPlatform};
use crate::platform::{DeploymentPlatform, PlatformError};
use crate::reconciler::Reconciler;
use crate::resources::{Folder, Store};

/// How often the folder is looked at: a change is in force after two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Everything is reconciled this often even if nothing seems to have changed: drift is found by looking.
const RESYNC_EVERY: Duration = Duration::from_secs(5);

/// Changes that come together are taken together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How often it is looked whether the parent is still there: nobody starts the same thing again sooner.
const PARENT_EVERY: Duration = Duration::from_millis(500);

/// A broker that is away is said in conditions, once, and not by librdkafka many times a second.
const QUIET: &str = "librdkafka=off,rdkafka=off";

/// Why the operator does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The folder is not there.
    #[error("the folder {path} (--resources) cannot be read: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// State cannot be read or written.
    #[error("the state directory (--state-dir) cannot be used: {0}")]
    State(io::Error),
    /// The log level is none.
    #[error("LOG_LEVEL '{0}' is no log level; use error, warn, info, debug or trace")]
    LogLevel(String),
    /// The Kubernetes API cannot be used.
    #[error(transparent)]
    Kubernetes(#[from] KubeError),
    /// The Swarm cannot be used.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// What the platform keeps of an earlier operator cannot be had.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The address for metrics is taken.
    #[error("cannot listen on {address} (--listen): {source}; choose another address")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// When it cannot begin; once begun, it goes on whatever happens.
pub async fn run(args: RunArgs) -> Result<(), RunError> {
    start_logging(&args)?;
    let metrics = Metrics::default();
    if let Some(address) = args.listen {
        http::serve(address, metrics.clone()).await?;
    }
    let stop = stop_on_signal();
    if args.exit_with_parent {
        tokio::spawn(stop_with_parent(stop.clone()));
    }
    match args.platform {
        PlatformKind::Local => run_local(args, metrics, &stop).await,
        PlatformKind::Kubernetes => run_kubernetes(args, metrics, &stop).await,
        PlatformKind::Swarm => run_swarm(args, metrics, &stop).await,
    }
}

async fn run_kubernetes(
    args: RunArgs,
    metrics: Metrics,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let client = kube::connect().await?;
    let identity = args.kubernetes.identity();
    let namespaces = args.kubernetes.namespaces.clone();
    let platform = Arc::new(KubernetesPlatform::new(client.clone(), namespaces));
    let shell = Arc::new(Shell {
        recorder: kube::recorder(client.clone(), &identity),
        metrics,
        client,
        backends: backends(&args, platform, &args.state.state_dir),
    });
    kube::run(shell, &args.kubernetes, &identity, Timing::default(), stop).await;
    Ok(())
}

async fn run_local(
    args: RunArgs,
    metrics: Metrics,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let folder = resources(&args)?;
    let keep = args.keep;
    let platform = Arc::new(LocalPlatform::open(&args.state.state_dir)?);
    let state = platform.state_dir().to_owned();
    let mut reconciler = reconciler(args, metrics, platform.clone(), state)?;
    watch_and_reconcile(&mut reconciler, folder, None, stop).await;
    if keep {
        info!("ends; all processes go on");
    } else {
        info!("ends; stopping all processes");
        platform.shutdown().await;
    }
    Ok(())
}

async fn run_swarm(
    args: RunArgs,
    metrics: Metrics,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let folder = resources(&args)?;
    let state = StateDir::open(&args.state.state_dir)?;
    let platform = Arc::new(SwarmPlatform::open(&args.swarm).await?);
    let mut kept = platform.kept_state();
    kept.restore(state.path()).await?;
    let mut reconciler = reconciler(args, metrics, platform, state.path().to_owned())?;
    watch_and_reconcile(&mut reconciler, folder, Some(kept), stop).await;
    info!("ends; all services go on");
    Ok(())
}

/// The command line has seen to it that there is a folder.
fn resources(args: &RunArgs) -> Result<Folder, RunError> {
    let path = args.resources.clone().unwrap_or_default();
    match std::fs::read_dir(&path) {
        Ok(_) => Ok(Folder::new(path)),
        Err(source) => Err(RunError::Folder { path, source }),
    }
}

fn reconciler(
    args: RunArgs,
    metrics: Metrics,
    platform: Arc<dyn DeploymentPlatform>,
    state: PathBuf,
) -> Result<Reconciler, RunError> {
    let store = Store::open(&state).map_err(RunError::State)?;
    let backends = backends(&args, platform, &state);
    info!(folder = %args.resources.unwrap_or_default().display(), state = %state.display(), "begins");
    Ok(Reconciler {
        state,
        backends,
        store,
        metrics,
        written: None,
    })
}

fn backends(args: &RunArgs, platform: Arc<dyn DeploymentPlatform>, state: &Path) -> Backends {
    let control = Arc::new(KafkaControlPlane::new(&args.control_topic));
    Backends {
        platform,
        groups: control.clone(),
        control,
        ksqldb: KsqlServers::new(args.ksqldb.max_queries),
        settings: Settings {
            kafka: args.kafka.clone(),
            control_topic: args.control_topic.clone(),
            forwarder_image: args.forwarder_image.clone(),
            serving_image: args.serving_image.clone(),
            ksqldb: args.ksqldb.clone(),
        },
        http: reqwest::Client::new(),
        readers: Readers::default(),
        kafka_files: state.join("kafka"),
    }
}

async fn watch_and_reconcile(
    reconciler: &mut Reconciler,
    mut folder: Folder,
    mut kept: Option<KeptState>,
    stop: &CancellationToken,
) {
    let mut changes = reconciler.backends.platform.watch();
    let mut news = reconciler.backends.control.news();
    let mut streams = reconciler.backends.ksqldb.watch();
    let mut resync = tokio::time::interval(RESYNC_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut loaded = false;
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => match folder.poll() {
                Some(snapshot) => {
                    reconciler.take(&snapshot);
                    loaded = true;
                    true
                }
                None => false,
            },
            _ = changes.changed() => true,
            _ = news.next() => true,
            _ = streams.changed() => true,
            _ = resync.tick() => true,
        };
        // Before the folder was read, what is no longer in it cannot be told from what is.
        if due && loaded {
            tokio::time::sleep(DEBOUNCE).await;
            changes.mark_unchanged();
            news.forget();
            streams.mark_unchanged();
            tokio::select! {
                () = stop.cancelled() => return,
                () = reconcile_and_keep(reconciler, kept.as_mut()) => {}
            }
        }
    }
}

/// Kept before anything is made, too: what runs must never belong to resources that nobody remembers.
async fn reconcile_and_keep(reconciler: &mut Reconciler, kept: Option<&mut KeptState>) {
    let Some(kept) = kept else {
        return reconciler.reconcile_all().await;
    };
    kept.keep(&reconciler.state).await;
    reconciler.reconcile_all().await;
    kept.keep(&reconciler.state).await;
}

fn start_logging(args: &RunArgs) -> Result<(), RunError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", args.log_level))
        .map_err(|_| RunError::LogLevel(args.log_level.clone()))?;
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // A second start in one process, as in tests, keeps the first.
    let _ = if args.log_json {
        logging.json().try_init()
    } else {
        logging.try_init()
    };
    Ok(())
}

/// A process whose parent ends gets another one.
async fn stop_with_parent(stop: CancellationToken) {
    let parent = rustix::process::getppid();
    while rustix::process::getppid() == parent {
        tokio::time::sleep(PARENT_EVERY).await;
    }
    info!("the process that started this operator has ended");
    stop.cancel();
}

fn stop_on_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let stop = stop.clone();
        match signal(kind) {
            Ok(mut received) => {
                tokio::spawn(async move {
                    received.recv().await;
                    stop.cancel();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a signal cannot be handled; its default action stays");
            }
        }
    }
    stop
}
