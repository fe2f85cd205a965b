//! What is kept of workloads on disk, and how another operator takes it over.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::addresses::Addresses;
use super::instance::Record;
use super::process;
use super::secrets::SecretFiles;
use super::store::{directories, read_json, write_json};
use super::supervisor::Supervisor;
use crate::platform::{PlatformError, Workload, WorkloadId};

/// What is kept of a workload on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Managed {
    pub(super) workload: Workload,
    pub(super) template: String,
    pub(super) removing: bool,
    pub(super) instances: BTreeMap<u16, Record>,
}

impl Supervisor {
    /// Reads what an earlier operator left and takes over its processes.
    pub(super) fn open(state: &Path, http: reqwest::Client, wake: Arc<Notify>) -> io::Result<Self> {
        let mut supervisor = Self {
            directory: state.to_owned(),
            workloads: BTreeMap::new(),
            live: BTreeMap::new(),
            addresses: Addresses::open(state)?,
            secrets: SecretFiles::new(state),
            http,
            wake,
        };
        let root = state.join("workloads");
        for namespace in directories(&root) {
            for name in directories(&root.join(&namespace)) {
                let id = WorkloadId::new(namespace.clone(), name);
                if let Some(managed) = read_json(&supervisor.record_file(&id))? {
                    supervisor.adopt(&id, managed)?;
                }
            }
        }
        Ok(supervisor)
    }

    fn adopt(&mut self, id: &WorkloadId, mut managed: Managed) -> io::Result<()> {
        for ordinal in 0..managed.workload.replicas {
            let record = managed.instances.entry(ordinal).or_default();
            let unrecorded = || process::find_started(&self.mark(id, ordinal));
            if record.process.is_none()
                && let Some((process, template)) = unrecorded()
            {
                record.has_started(process, &template, 0);
            }
        }
        let running = managed.instances.iter().filter(|(_, record)| {
            record
                .process
                .as_ref()
                .is_some_and(process::ProcessId::is_alive)
        });
        let running: Vec<u16> = running.map(|(&ordinal, _)| ordinal).collect();
        self.workloads.insert(id.clone(), managed);
        self.save(id)?;
        for ordinal in running {
            info!(workload = %id, ordinal, "goes on running under this operator");
            self.probe(id, ordinal);
        }
        Ok(())
    }

    pub(super) fn mark(&self, id: &WorkloadId, ordinal: u16) -> String {
        instance_directory(&self.directory, id, ordinal)
            .to_string_lossy()
            .into_owned()
    }

    pub(super) fn record_file(&self, id: &WorkloadId) -> PathBuf {
        workload_directory(&self.directory, id).join("workload.json")
    }

    pub(super) fn save(&self, id: &WorkloadId) -> io::Result<()> {
        match self.workloads.get(id) {
            Some(managed) => write_json(&self.record_file(id), managed),
            None => Ok(()),
        }
    }

    pub(super) fn save_or_warn(&self, id: &WorkloadId) {
        if let Err(error) = self.save(id) {
            warn!(workload = %id, "{}", self.write_failed(&error));
        }
    }

    pub(super) fn write_failed(&self, error: &io::Error) -> PlatformError {
        PlatformError::Failed {
            what: format!("write to the state directory {}", self.directory.display()),
            why: format!("{error}; make room or choose another with --state-dir"),
        }
    }
}

pub(super) fn workload_directory(state: &Path, id: &WorkloadId) -> PathBuf {
    state.join("workloads").join(&id.namespace).join(&id.name)
}

pub(super) fn instance_directory(state: &Path, id: &WorkloadId, ordinal: u16) -> PathBuf {
    workload_directory(state, id).join(ordinal.to_string())
}
