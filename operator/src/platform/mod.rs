//! Where workloads run: Kubernetes, Swarm, or processes of this machine, behind one trait.

pub mod kubernetes;
pub mod local;
pub mod plan;
mod probe;
pub mod swarm;
mod workload;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

pub use workload::*;

/// Why a platform did not do what it was asked.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// The platform cannot do what a field asks for.
    #[error("the {platform} platform does not support {field}: {reason}")]
    Unsupported {
        /// The platform.
        platform: &'static str,
        /// Field of the [`Workload`].
        field: &'static str,
        /// Why, and what to do instead.
        reason: String,
    },
    /// Something of that name exists and belongs to somebody else.
    #[error(
        "{id} already exists for {owner}; choose another name for one of the two, they would stop each other"
    )]
    NameConflict {
        /// The workload.
        id: WorkloadId,
        /// Whose it is.
        owner: String,
    },
    /// Instances that must lie apart cannot.
    #[error(
        "{id} asks for {wanted} hosts (spread.mode Required) and {hosts} can be used; add hosts, ask for fewer instances, \
         or set spread.mode to Preferred"
    )]
    TooFewHosts {
        /// The workload.
        id: WorkloadId,
        /// Hosts needed.
        wanted: u16,
        /// Hosts that can be used.
        hosts: usize,
    },
    /// A workload needs a secret that is not there.
    #[error("secret {0} is missing: {1}")]
    MissingSecret(String, String),
    /// No such workload or instance.
    #[error("there is no {0}")]
    NotFound(String),
    /// The machine or the platform's API refused.
    #[error("cannot {what}: {why}")]
    Failed {
        /// What was attempted.
        what: String,
        /// Why it failed, and what to do.
        why: String,
    },
}

impl PlatformError {
    /// The CamelCase reason for a condition.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "Unsupported",
            Self::NameConflict { .. } => "NameConflict",
            Self::TooFewHosts { .. } => "TooFewHosts",
            Self::MissingSecret(..) => "SecretMissing",
            Self::NotFound(_) => "NotFound",
            Self::Failed { .. } => "PlatformFailed",
        }
    }

    /// Whether trying again without anybody's help is pointless.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Unsupported { .. }
                | Self::NameConflict { .. }
                | Self::TooFewHosts { .. }
                | Self::MissingSecret(..)
        )
    }
}

/// What is known about one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadState {
    /// Which one.
    pub id: WorkloadId,
    /// For whom it runs.
    pub owner: Owner,
    /// Instances asked for.
    pub wanted: u16,
    /// Instances that exist, by ordinal; those on their way out included.
    pub instances: Vec<InstanceState>,
    /// Whether a newer operator would build the instances in another way, which waits until users choose something
    /// else anyway or ask for it.
    #[serde(default)]
    pub held_back: bool,
}

impl WorkloadState {
    /// Instances that are ready.
    #[must_use]
    pub fn ready(&self) -> u16 {
        count(self.instances.iter().filter(|instance| instance.ready))
    }

    /// Instances that run what was last asked for.
    #[must_use]
    pub fn current(&self) -> u16 {
        count(self.instances.iter().filter(|instance| instance.current))
    }

    /// Whether exactly the instances asked for exist, all of them current and ready.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.instances.len() == usize::from(self.wanted)
            && self.instances.iter().all(|i| i.ready && i.current)
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u16 {
    u16::try_from(items.count()).unwrap_or(u16::MAX)
}

/// What is known about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// Name, `<workload>-<ordinal>` where instances have an identity.
    pub name: String,
    /// Ordinal.
    pub ordinal: u16,
    /// Where the operator and other instances reach it.
    pub host: String,
    /// What it is at.
    pub phase: Phase,
    /// Whether it may be used.
    pub ready: bool,
    /// Whether it runs what was last asked for.
    pub current: bool,
    /// How often it was started again after it ended unasked.
    pub restarts: u32,
    /// Whether it ended again and again or cannot start at all, so that somebody must help.
    pub stuck: bool,
    /// What tells this run of the instance from the next: a process id, a container id.
    pub process: Option<String>,
    /// What went wrong last, and what to do about it.
    pub message: Option<String>,
}

/// What an instance is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// About to start.
    Pending,
    /// Runs.
    Running,
    /// Ended unasked and waits to be started again.
    BackOff,
    /// Was asked to end.
    Stopping,
}

/// Where workloads run. All verbs are idempotent and return before the work they set off is done:
/// [`observe`](Self::observe) tells how far it is, [`watch`](Self::watch) when to look.
#[async_trait]
pub trait DeploymentPlatform: Send + Sync {
    /// Name of the platform for messages.
    fn name(&self) -> &'static str;

    /// Makes the workload what is described, without a restart of anything that already is.
    ///
    /// # Errors
    /// `Unsupported` before anything is changed; `NameConflict` when the name is another owner's.
    async fn ensure(&self, workload: &Workload) -> Result<(), PlatformError>;

    /// Stops and removes the workload, its data kept. Returns whether nothing of it is left.
    ///
    /// # Errors
    /// When the platform refuses.
    async fn remove(&self, id: &WorkloadId) -> Result<bool, PlatformError>;

    /// Every workload this operator has here, in the order of their ids.
    ///
    /// # Errors
    /// When the platform cannot be asked.
    async fn list(&self) -> Result<Vec<WorkloadState>, PlatformError>;

    /// The workloads that run for one resource of a namespace, in the order of their ids.
    ///
    /// # Errors
    /// When the platform cannot be asked.
    async fn owned(
        &self,
        namespace: &str,
        owner: &Owner,
    ) -> Result<Vec<WorkloadId>, PlatformError> {
        let mut all = self.list().await?;
        all.retain(|state| state.owner == *owner && state.id.namespace == namespace);
        Ok(all.into_iter().map(|state| state.id).collect())
    }

    /// One workload; `None` when there is none of that id.
    ///
    /// # Errors
    /// When the platform cannot be asked.
    async fn observe(&self, id: &WorkloadId) -> Result<Option<WorkloadState>, PlatformError>;

    /// Restarts one instance as last described to [`ensure`](Self::ensure).
    ///
    /// # Errors
    /// `NotFound` when there is no such instance.
    async fn restart(&self, id: &WorkloadId, ordinal: u16) -> Result<(), PlatformError>;

    /// A number that changes whenever anything here changes, unless those who reconcile hear of changes otherwise.
    fn watch(&self) -> watch::Receiver<u64>;

    /// The stable name or address under which the other instances reach one of a stateful workload,
    /// whether it exists yet or not.
    ///
    /// # Errors
    /// When no address can be had.
    async fn instance_host(&self, id: &WorkloadId, ordinal: u16) -> Result<String, PlatformError>;

    /// The `host:port` under which the operator itself reaches what is called `address` among the
    /// instances of `namespace`.
    async fn resolve(&self, namespace: &str, address: &str) -> String;

    /// A secret's values; `None` when there is none of that id.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn secret(&self, id: &SecretId) -> Result<Option<SecretData>, PlatformError>;

    /// Creates a secret unless it exists: what exists stays as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    async fn create_secret(
        &self,
        id: &SecretId,
        owner: &Owner,
        data: &SecretData,
    ) -> Result<(), PlatformError>;

    /// Removes a secret that [`create_secret`](Self::create_secret) made.
    ///
    /// # Errors
    /// When it cannot be removed.
    async fn remove_secret(&self, id: &SecretId) -> Result<(), PlatformError>;
}
