//! Docker Swarm: a pure translation ([`spec`]) and a thin client of a manager's engine.
//!
//! Instances that are alike are the tasks of one service. An instance with an identity is a service of its own, so that
//! it keeps its name over restarts and moves, and so that each can be replaced alone.

mod apply;
mod check;
mod engine;
mod environment;
mod files;
mod health;
mod kept;
mod labels;
mod looker;
mod placement;
mod quantity;
mod secrets;
mod service;
pub mod spec;
mod state;
mod stored;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::LocalNodeState;
use clap::Args;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::check::check;
use self::engine::Engine;
pub use self::files::{Secrets, StoredFile};
pub use self::kept::KeptState;
use self::looker::Looker;
use self::secrets::SecretSource;
use crate::platform::{
    DeploymentPlatform, Owner, PlatformError, SecretData, SecretId, Workload, WorkloadId,
    WorkloadState,
};

/// Name of this platform in messages.
const PLATFORM: &str = "swarm";

/// `operator run --platform swarm`.
#[derive(Debug, Clone, Args)]
pub struct SwarmArgs {
    /// Engine of a manager of the Swarm
    #[arg(
        long,
        env = "DOCKER_HOST",
        default_value = "unix:///var/run/docker.sock"
    )]
    pub docker_host: String,
    /// Overlay network of all instances; made if it is not there
    #[arg(long, env = "OFA_NETWORK", default_value = "factory-net")]
    pub network: String,
    /// Tells this operator's services from those of another one on the same Swarm
    #[arg(long, env = "OFA_INSTALLATION", default_value = "openfactory-fanout")]
    pub installation: String,
    /// Folder with the values of secrets that resources name: `<namespace>/<secret>/<key>`
    #[arg(long, env = "OFA_SECRETS", default_value = "/run/secrets")]
    pub secrets: PathBuf,
}

/// The Swarm cannot be used.
#[derive(Debug, Error)]
pub enum SwarmError {
    /// The engine does not answer.
    #[error(
        "the Docker engine at {host} (--docker-host) cannot be used: {source}; give the operator the socket of a manager"
    )]
    Engine {
        /// Where it was looked for.
        host: String,
        /// Why.
        source: bollard::errors::Error,
    },
    /// It answers and manages no Swarm.
    #[error(
        "the Docker engine at {0} (--docker-host) is no manager of a Swarm; run the operator on a manager (constraint \
         node.role==manager), or begin a Swarm with: docker swarm init"
    )]
    NoManager(String),
}

/// Workloads as services of a Swarm.
pub struct SwarmPlatform {
    engine: Engine,
    network: String,
    secrets: SecretSource,
    /// What was last asked for, for a restart that is asked for later.
    asked: Mutex<BTreeMap<WorkloadId, Workload>>,
    looker: Arc<Looker>,
    looking: JoinHandle<()>,
}

impl SwarmPlatform {
    /// Connects to the engine of a manager.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(args: &SwarmArgs) -> Result<Self, SwarmError> {
        crate::tls::install_provider();
        let host = args.docker_host.clone();
        let unusable = |source| SwarmError::Engine {
            host: host.clone(),
            source,
        };
        let docker = Docker::connect_with_host(&args.docker_host).map_err(unusable)?;
        // Engines in use are years apart; the older of the two sides decides.
        let docker = docker.negotiate_version().await.map_err(unusable)?;
        let swarm = docker.info().await.map_err(unusable)?.swarm;
        let manages = swarm.is_some_and(|swarm| {
            swarm.control_available == Some(true)
                && swarm.local_node_state == Some(LocalNodeState::ACTIVE)
        });
        if !manages {
            return Err(SwarmError::NoManager(host));
        }
        let engine = Engine {
            docker,
            installation: args.installation.clone(),
        };
        let looker = Arc::new(Looker::new(engine.clone()));
        Ok(Self {
            secrets: SecretSource::new(engine.clone(), args.secrets.clone()),
            looking: tokio::spawn(looker.clone().run()),
            network: args.network.clone(),
            asked: Mutex::default(),
            looker,
            engine,
        })
    }

    /// The operator's state as the Swarm keeps it.
    #[must_use]
    pub fn kept_state(&self) -> KeptState {
        KeptState::new(self.engine.clone())
    }

    async fn states(&self) -> Result<Vec<WorkloadState>, PlatformError> {
        let services = self.engine.services().await?;
        let tasks = self.engine.tasks().await?;
        let down = engine::down(&self.engine.nodes().await?);
        let answers = self.looker.answers();
        let around = state::Around {
            down: &down,
            answers: &answers,
        };
        let mut ids: Vec<WorkloadId> = services
            .iter()
            .filter_map(|service| labels::workload_of(&state::service_labels(service)))
            .collect();
        ids.sort();
        ids.dedup();
        let states = ids
            .iter()
            .filter_map(|id| state::state(id, &services, &tasks, &around));
        Ok(states.collect())
    }
}

/// The services go on; only the looking ends.
impl Drop for SwarmPlatform {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

#[async_trait]
impl DeploymentPlatform for SwarmPlatform {
    fn name(&self) -> &'static str {
        PLATFORM
    }

    async fn ensure(&self, workload: &Workload) -> Result<(), PlatformError> {
        self.apply(workload).await?;
        let mut asked = self.asked.lock();
        asked.insert(workload.id.clone(), workload.clone());
        Ok(())
    }

    async fn remove(&self, id: &WorkloadId) -> Result<bool, PlatformError> {
        self.asked.lock().remove(id);
        self.take_down(id).await
    }

    async fn list(&self) -> Result<Vec<WorkloadState>, PlatformError> {
        self.states().await
    }

    async fn observe(&self, id: &WorkloadId) -> Result<Option<WorkloadState>, PlatformError> {
        let states = self.states().await?;
        Ok(states.into_iter().find(|state| state.id == *id))
    }

    async fn restart(&self, id: &WorkloadId, ordinal: u16) -> Result<(), PlatformError> {
        let asked = self.asked.lock().get(id).cloned();
        self.replace(id, ordinal, asked.as_ref()).await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.looker.changes()
    }

    /// The name of its service, which its containers have wherever they are.
    async fn instance_host(&self, id: &WorkloadId, ordinal: u16) -> Result<String, PlatformError> {
        Ok(id.instance(ordinal))
    }

    /// The operator is on the instances' network, where names are the same for all.
    async fn resolve(&self, _namespace: &str, address: &str) -> String {
        address.to_owned()
    }

    async fn secret(&self, id: &SecretId) -> Result<Option<SecretData>, PlatformError> {
        self.secrets.read(id).await
    }

    async fn create_secret(
        &self,
        id: &SecretId,
        owner: &Owner,
        data: &SecretData,
    ) -> Result<(), PlatformError> {
        self.secrets.create(id, owner, data).await
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), PlatformError> {
        self.secrets.remove(id).await
    }
}

#[cfg(test)]
mod tests;
