//! Where values of secrets come from.
//!
//! A Swarm gives the content of a secret to containers only, and the operator must know it: for its own connections, and
//! to see that it has changed. So users mount theirs into the operator's service, and those that the operator generates
//! are kept as configs, which a manager can read back. Instances get all of them as Swarm secrets.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::engine::{Engine, Stored};
use super::labels::{GENERATED, INSTALLATION, Labels};
use crate::digest::digest;
use crate::platform::{Owner, PlatformError, SecretData, SecretId};

/// Where values of secrets come from.
#[derive(Debug)]
pub(super) struct SecretSource {
    engine: Engine,
    folder: PathBuf,
}

impl SecretSource {
    pub(super) fn new(engine: Engine, folder: PathBuf) -> Self {
        Self { engine, folder }
    }

    /// A secret of the user's, or one that was generated.
    pub(super) async fn read(&self, id: &SecretId) -> Result<Option<SecretData>, PlatformError> {
        if let Some(data) = self.read_folder(id)? {
            return Ok(Some(data));
        }
        match self.generated(id).await? {
            None => Ok(None),
            Some(stored) => parse(&stored).map(Some),
        }
    }

    fn read_folder(&self, id: &SecretId) -> Result<Option<SecretData>, PlatformError> {
        let folder = self.folder.join(&id.namespace).join(&id.name);
        let failed = |source: io::Error| PlatformError::Failed {
            what: format!("read the secret in {} (--secrets)", folder.display()),
            why: source.to_string(),
        };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut data = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Neither hidden files nor directories are keys.
            if !name.starts_with('.') && path.is_file() {
                let value = fs::read_to_string(&path).map_err(failed)?;
                data.insert(name.into_owned(), value);
            }
        }
        Ok(Some(SecretData(data)))
    }

    async fn generated(&self, id: &SecretId) -> Result<Option<Stored>, PlatformError> {
        let name = self.name(id);
        let configs = self.engine.configs().await?;
        Ok(configs.into_iter().find(|config| config.name == name))
    }

    pub(super) async fn create(
        &self,
        id: &SecretId,
        owner: &Owner,
        data: &SecretData,
    ) -> Result<(), PlatformError> {
        let labels = Labels::from([
            (INSTALLATION.to_owned(), self.engine.installation.clone()),
            (
                GENERATED.to_owned(),
                format!("{}/{}", id.namespace, id.name),
            ),
            ("for".to_owned(), format!("{} {}", owner.kind, owner.name)),
        ]);
        let content = serde_json::json!(data.0).to_string();
        self.engine
            .create_config(&self.name(id), labels, &content)
            .await
    }

    pub(super) async fn remove(&self, id: &SecretId) -> Result<(), PlatformError> {
        match self.generated(id).await? {
            Some(stored) => self.engine.remove_config(&stored).await,
            None => Ok(()),
        }
    }

    fn name(&self, id: &SecretId) -> String {
        let digest = digest(&[&self.engine.installation, &id.namespace, &id.name]);
        let readable: String = id.name.chars().take(40).collect();
        format!("{readable}-{digest}")
    }
}

fn parse(stored: &Stored) -> Result<SecretData, PlatformError> {
    let data = serde_json::from_str(&stored.content);
    data.map(SecretData).map_err(|error| PlatformError::Failed {
        what: format!("read the generated secret in config {}", stored.name),
        why: format!("{error}; remove the config, and new passwords are made"),
    })
}
