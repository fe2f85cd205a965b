//! Processes of this machine on loopback addresses: made for trying things out and for tests.
//!
//! Every instance is a process group of its own with an address out of 127.64.0.0/10. What runs is
//! recorded in the state directory, so that an operator that starts again, however the last one ended,
//! takes over what runs and restarts nothing.

mod addresses;
pub mod command;
mod instance;
pub mod names;
mod process;
pub mod programs;
mod records;
mod secrets;
mod shutdown;
pub mod store;
mod supervisor;
mod surroundings;
pub mod text;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::store::{StateDir, StateDirError};
use self::supervisor::Supervisor;
use crate::platform::{
    DeploymentPlatform, Owner, PlatformError, SecretData, SecretId, Workload, WorkloadId,
    WorkloadState,
};

/// How often processes are looked at: an end is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The platform of local processes.
pub struct LocalPlatform {
    shared: Arc<Shared>,
    looking: JoinHandle<()>,
    state: StateDir,
}

struct Shared {
    supervisor: Mutex<Supervisor>,
    wake: Arc<Notify>,
    changes: watch::Sender<u64>,
}

impl LocalPlatform {
    /// Opens a state directory and takes over what runs there.
    ///
    /// # Errors
    /// When another operator uses it, or it cannot be read or written.
    pub fn open(state: &Path) -> Result<Self, StateDirError> {
        crate::tls::install_provider();
        let state = StateDir::open(state)?;
        let wake = Arc::new(Notify::new());
        let supervisor = Supervisor::open(state.path(), reqwest::Client::new(), wake.clone());
        let supervisor = supervisor.map_err(|source| StateDirError::Io {
            path: state.path().to_owned(),
            source,
        })?;
        let shared = Arc::new(Shared {
            supervisor: Mutex::new(supervisor),
            wake,
            changes: watch::Sender::new(0),
        });
        let looking = tokio::spawn(look(shared.clone()));
        Ok(Self {
            shared,
            looking,
            state,
        })
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// Stops every process, those that serve others last, and leaves none behind.
    pub async fn shutdown(&self) {
        self.looking.abort();
        shutdown::stop_all(&self.shared.supervisor).await;
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
        self.shared.wake.notify_one();
    }

    fn io_failed(&self, error: &io::Error) -> PlatformError {
        self.shared.supervisor.lock().write_failed(error)
    }
}

/// The processes go on; only the looking ends.
impl Drop for LocalPlatform {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(shared: Arc<Shared>) {
    loop {
        if shared.supervisor.lock().tick() {
            shared.changes.send_modify(|count| *count += 1);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shared.wake.notified() => {}
        }
    }
}

#[async_trait]
impl DeploymentPlatform for LocalPlatform {
    fn name(&self) -> &'static str {
        command::PLATFORM
    }

    async fn ensure(&self, workload: &Workload) -> Result<(), PlatformError> {
        let changed = {
            let mut supervisor = self.shared.supervisor.lock();
            let changed = supervisor.ensure(workload)?;
            supervisor.put_live_files(&workload.id)?;
            changed
        };
        if changed {
            self.changed();
        }
        Ok(())
    }

    async fn remove(&self, id: &WorkloadId) -> Result<bool, PlatformError> {
        let gone = self.shared.supervisor.lock().remove(id)?;
        if !gone {
            self.shared.wake.notify_one();
        }
        Ok(gone)
    }

    async fn list(&self) -> Result<Vec<WorkloadState>, PlatformError> {
        let mut supervisor = self.shared.supervisor.lock();
        let ids: Vec<WorkloadId> = supervisor.workloads.keys().cloned().collect();
        Ok(ids.iter().filter_map(|id| supervisor.state(id)).collect())
    }

    async fn observe(&self, id: &WorkloadId) -> Result<Option<WorkloadState>, PlatformError> {
        Ok(self.shared.supervisor.lock().state(id))
    }

    async fn restart(&self, id: &WorkloadId, ordinal: u16) -> Result<(), PlatformError> {
        self.shared.supervisor.lock().restart(id, ordinal)?;
        self.changed();
        Ok(())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    async fn instance_host(&self, id: &WorkloadId, ordinal: u16) -> Result<String, PlatformError> {
        let address = self.shared.supervisor.lock().address(id, ordinal);
        address
            .map(|address| address.to_string())
            .map_err(|error| self.io_failed(&error))
    }

    async fn resolve(&self, namespace: &str, address: &str) -> String {
        let Ok(names) = self.shared.supervisor.lock().names() else {
            return address.to_owned();
        };
        text::replace_hosts(address, |name, port| {
            let (address, port) = names.resolve(namespace, name, port)?;
            Some((address.to_string(), port))
        })
    }

    async fn secret(&self, id: &SecretId) -> Result<Option<SecretData>, PlatformError> {
        let read = self.shared.supervisor.lock().secrets.read(id);
        read.map_err(|error| self.io_failed(&error))
    }

    async fn create_secret(
        &self,
        id: &SecretId,
        owner: &Owner,
        data: &SecretData,
    ) -> Result<(), PlatformError> {
        let created = self
            .shared
            .supervisor
            .lock()
            .secrets
            .create(id, owner, data);
        created.map_err(|error| self.io_failed(&error))
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), PlatformError> {
        let removed = self.shared.supervisor.lock().secrets.remove(id);
        removed.map_err(|error| self.io_failed(&error))
    }
}
