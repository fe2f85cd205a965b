//! What surrounds an instance: names, addresses, secrets, and the command line they make of it.

use std::io;
use std::net::Ipv4Addr;

use super::command::{self, CommandLine, Secrets, Surroundings};
use super::names::Names;
use super::records::instance_directory;
use super::store::write_file;
use super::supervisor::Supervisor;
use crate::platform::{PlatformError, SecretId, Workload, WorkloadId};

impl Supervisor {
    pub(super) fn line(
        &mut self,
        id: &WorkloadId,
        ordinal: u16,
    ) -> Result<CommandLine, PlatformError> {
        let Some(managed) = self.workloads.get(id) else {
            return Err(PlatformError::NotFound(id.to_string()));
        };
        let workload = managed.workload.clone();
        let names = self.names().map_err(|error| self.write_failed(&error))?;
        let host = self
            .host(&workload, ordinal)
            .map_err(|error| self.write_failed(&error))?;
        command::command_line(
            &workload,
            &Surroundings {
                ordinal,
                host,
                root: &instance_directory(&self.directory, id, ordinal).join("root"),
                names: &names,
                secrets: &self.secrets_of(&workload),
            },
        )
    }

    /// The names all instances know each other by.
    pub(super) fn names(&mut self) -> io::Result<Names> {
        let mut names = Names::default();
        let workloads: Vec<Workload> = self
            .workloads
            .values()
            .map(|m| m.workload.clone())
            .collect();
        for workload in workloads
            .iter()
            .filter(|workload| !workload.services.is_empty())
        {
            let addresses: io::Result<Vec<Ipv4Addr>> = (0..workload.replicas)
                .map(|ordinal| self.host(workload, ordinal))
                .collect();
            names.add(workload, &addresses?);
        }
        Ok(names)
    }

    pub(super) fn host(&mut self, workload: &Workload, ordinal: u16) -> io::Result<Ipv4Addr> {
        if workload.ports.iter().any(|port| port.host_port.is_some()) {
            return Ok(Ipv4Addr::LOCALHOST);
        }
        self.address(&workload.id, ordinal)
    }

    /// The address set aside for an instance.
    pub(super) fn address(&mut self, id: &WorkloadId, ordinal: u16) -> io::Result<Ipv4Addr> {
        self.addresses
            .of(&format!("{}/{}", id.namespace, id.instance(ordinal)))
    }

    /// Puts changed files under running processes that take them in when told to.
    pub(super) fn put_live_files(&mut self, id: &WorkloadId) -> Result<(), PlatformError> {
        let Some(managed) = self.workloads.get(id) else {
            return Ok(());
        };
        let running = managed.instances.iter();
        let running = running.filter(|(_, record)| record.process.is_some());
        let ordinals: Vec<u16> = running.map(|(ordinal, _)| *ordinal).collect();
        for ordinal in ordinals {
            for file in self.line(id, ordinal)?.files.iter().filter(|it| it.live) {
                if std::fs::read(&file.path).is_ok_and(|old| old == file.content.as_bytes()) {
                    continue;
                }
                write_file(&file.path, file.content.as_bytes(), 0o600)
                    .map_err(|error| self.write_failed(&error))?;
            }
        }
        Ok(())
    }

    /// Secrets that cannot be read count as missing, which the start then reports.
    pub(super) fn secrets_of(&self, workload: &Workload) -> Secrets {
        let names = command::secret_keys(workload).map(|key| key.secret.clone());
        let read = names.filter_map(|name| {
            let id = SecretId::new(workload.id.namespace.clone(), name.clone());
            Some((name, self.secrets.read(&id).ok().flatten()?))
        });
        read.collect()
    }
}
