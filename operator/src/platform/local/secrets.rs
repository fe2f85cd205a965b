//! Secrets as files: `secrets/<namespace>/<name>/<key>`, mode 0600. Those of users are put there by them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::store::{write_file, write_json};
use crate::platform::{Owner, SecretData, SecretId};

/// File that marks a secret as made by the operator, and for whom.
const OWNER_FILE: &str = ".owner.json";

/// The secrets of one state directory.
#[derive(Debug)]
pub(super) struct SecretFiles {
    directory: PathBuf,
}

impl SecretFiles {
    pub(super) fn new(state: &Path) -> Self {
        Self {
            directory: state.join("secrets"),
        }
    }

    pub(super) fn read(&self, id: &SecretId) -> io::Result<Option<SecretData>> {
        let entries = match fs::read_dir(self.path(id)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut data = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let key = entry.file_name().to_string_lossy().into_owned();
            if !key.starts_with('.') {
                data.insert(key, fs::read_to_string(entry.path())?);
            }
        }
        Ok(Some(SecretData(data)))
    }

    /// Whole or not at all: written beside its place and moved there.
    pub(super) fn create(&self, id: &SecretId, owner: &Owner, data: &SecretData) -> io::Result<()> {
        let place = self.path(id);
        if place.exists() {
            return Ok(());
        }
        let new = place.with_file_name(format!(".{}.new", id.name));
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new)?;
        write_json(&new.join(OWNER_FILE), owner)?;
        for (key, value) in &data.0 {
            write_file(&new.join(key), value.as_bytes(), 0o600)?;
        }
        fs::rename(&new, &place)
    }

    pub(super) fn remove(&self, id: &SecretId) -> io::Result<()> {
        let place = self.path(id);
        if place.join(OWNER_FILE).exists() {
            fs::remove_dir_all(place)?;
        }
        Ok(())
    }

    fn path(&self, id: &SecretId) -> PathBuf {
        self.directory.join(&id.namespace).join(&id.name)
    }
}
