//! Configs and secrets on the Swarm: there before what refers to them, gone after it.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::ServiceSpec;

use super::SwarmPlatform;
use super::engine::Stored;
use super::files::StoredFile;
use super::labels::{self, Labels};
use super::service::files_of;
use super::spec::Translation;
use crate::platform::{PlatformError, WorkloadId};

impl SwarmPlatform {
    /// Creates configs and secrets, and puts their ids beside their names.
    pub(super) async fn with_files(
        &self,
        id: &WorkloadId,
        mut spec: ServiceSpec,
        wanted: &Translation,
    ) -> Result<ServiceSpec, PlatformError> {
        let marks: Labels = labels::of_workload(&self.engine.installation, id)
            .into_iter()
            .collect();
        for StoredFile {
            name,
            sensitive,
            content,
            ..
        } in &wanted.files
        {
            if *sensitive {
                self.engine
                    .create_secret(name, marks.clone(), content)
                    .await?;
            } else {
                self.engine
                    .create_config(name, marks.clone(), content)
                    .await?;
            }
        }
        let container = spec
            .task_template
            .as_mut()
            .and_then(|task| task.container_spec.as_mut());
        let Some(container) = container else {
            return Ok(spec);
        };
        let by_name = |stored: Vec<Stored>| -> BTreeMap<String, String> {
            stored.into_iter().map(|it| (it.name, it.id)).collect()
        };
        if let Some(configs) = container.configs.as_mut() {
            let ids = by_name(self.engine.configs().await?);
            for config in configs {
                config.config_id = ids
                    .get(config.config_name.as_deref().unwrap_or(""))
                    .cloned();
            }
        }
        if let Some(secrets) = container.secrets.as_mut() {
            let ids = by_name(self.engine.secrets().await?);
            for secret in secrets {
                secret.secret_id = ids
                    .get(secret.secret_name.as_deref().unwrap_or(""))
                    .cloned();
            }
        }
        Ok(spec)
    }

    /// Configs and secrets of the workload that none of its services refers to any more.
    pub(super) async fn remove_unused_files(&self, id: &WorkloadId) -> Result<(), PlatformError> {
        let services = self.engine.services().await?;
        let used: BTreeSet<String> = services.iter().flat_map(files_of).collect();
        let unused = |stored: &&Stored| {
            labels::workload_of(&stored.labels).as_ref() == Some(id) && !used.contains(&stored.name)
        };
        for config in self.engine.configs().await?.iter().filter(unused) {
            self.engine.remove_config(config).await?;
        }
        for secret in self.engine.secrets().await?.iter().filter(unused) {
            self.engine.remove_secret(secret).await?;
        }
        Ok(())
    }
}
