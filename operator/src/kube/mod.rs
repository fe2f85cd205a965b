//! The shell around the reconcilers that the Kubernetes API feeds.

pub mod controllers;
pub mod kind;
pub mod lease;
mod pace;
mod pending;
pub mod shell;
mod tell;
mod write;

use std::sync::Arc;

use clap::Args;
use futures::future;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::lease::{LeaderLock, Timing};
use self::shell::Shell;
use crate::platform::kubernetes::scopes;

/// Who reports events, and the field manager's name to people.
const CONTROLLER: &str = "openfactory-fanout-operator";

/// `operator run --platform kubernetes`.
#[derive(Debug, Clone, Args)]
pub struct KubernetesArgs {
    /// Namespaces to work in, separated by commas; all if not set
    #[arg(long = "namespace", env = "OFA_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Acts without asking whether another operator does; for a single one
    #[arg(long, env = "OFA_NO_LEADER_ELECTION")]
    pub no_leader_election: bool,
    /// Name of the Lease that operators of one installation share
    #[arg(long, env = "OFA_LEASE_NAME", default_value = CONTROLLER)]
    pub lease_name: String,
    /// Namespace of the Lease; the operator's own if not set
    #[arg(long, env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of this operator among those that share the Lease; made up if not set
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
}

/// The Kubernetes API cannot be used.
#[derive(Debug, Error)]
pub enum KubeError {
    /// Where it is, and who we are, cannot be told.
    #[error(
        "how to reach the Kubernetes API is not known: {0}; run inside a cluster, or set KUBECONFIG"
    )]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("the Kubernetes API cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// The client of the cluster around the process, or of KUBECONFIG.
///
/// # Errors
/// When there is neither.
pub async fn connect() -> Result<Client, KubeError> {
    let config = kube::Config::infer().await?;
    Ok(Client::try_from(config)?)
}

/// Where events of this process go.
#[must_use]
pub fn recorder(client: Client, identity: &str) -> Recorder {
    let reporter = Reporter {
        controller: CONTROLLER.to_owned(),
        instance: Some(identity.to_owned()),
    };
    Recorder::new(client, reporter)
}

impl KubernetesArgs {
    /// What tells this process from all others that share the lease, and from those before it.
    #[must_use]
    pub fn identity(&self) -> String {
        let name = self.identity.as_deref().unwrap_or("operator");
        format!("{name}_{:08x}", rand::random::<u32>())
    }
}

/// Reconciles whenever this process leads, until stopped.
pub async fn run(
    shell: Arc<Shell>,
    args: &KubernetesArgs,
    identity: &str,
    timing: Timing,
    stop: &CancellationToken,
) {
    let ready = pending::report(&shell.client, &args.namespaces, &shell.metrics);
    let work = async {
        if args.no_leader_election {
            lead(&shell, &args.namespaces, stop).await;
        } else {
            let mut lock = leader_lock(&shell, args, identity, timing);
            take_turns(&shell, &args.namespaces, &mut lock, stop).await;
        }
    };
    tokio::select! {
        () = work => {}
        // Goes on for as long as there is work.
        () = async { ready.await; future::pending().await } => {}
    }
}

fn leader_lock(shell: &Shell, args: &KubernetesArgs, identity: &str, timing: Timing) -> LeaderLock {
    let client = shell.client.clone();
    let own = client.default_namespace().to_owned();
    let namespace = args.lease_namespace.as_deref().unwrap_or(&own);
    LeaderLock::new(client, namespace, &args.lease_name, identity, timing)
}

async fn take_turns(
    shell: &Arc<Shell>,
    namespaces: &[String],
    lock: &mut LeaderLock,
    stop: &CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = lock.acquire() => {}
        }
        shell.metrics.leads(true);
        let stopped = {
            let work = lead(shell, namespaces, stop);
            tokio::select! {
                // On return everything under way has ended.
                () = work => true,
                // What is under way ends here and now: another one may begin.
                () = lock.keep() => false,
            }
        };
        shell.metrics.leads(false);
        shell.backends.ksqldb.release_all();
        if stopped {
            lock.release().await;
            return;
        }
    }
}

async fn lead(shell: &Arc<Shell>, namespaces: &[String], stop: &CancellationToken) {
    info!(?namespaces, "reconciles");
    let scopes = scopes(namespaces).into_iter();
    let all = scopes.map(|namespace| controllers::run(shell.clone(), namespace, stop));
    future::join_all(all).await;
}
