//! What a forwarder shows to shards: a file that may change while it runs, as it does when there is a new shard.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ofa_crds::{ShardAccess, ShardAccessFile, ShardMap, ShardName};
use thiserror::Error;

/// Why the file is of no use.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    #[error("NATS_CREDENTIALS_FILE {path} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("NATS_CREDENTIALS_FILE {path} is not as it should be: {source}")]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// The file, where there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials(Option<Arc<Path>>);

impl Credentials {
    pub(crate) fn new(file: Option<&Path>) -> Self {
        Self(file.map(Arc::from))
    }

    /// What is shown to one shard.
    pub(crate) fn of(&self, shard: &str) -> Access {
        Access {
            credentials: self.clone(),
            shard: shard.to_owned(),
        }
    }

    /// A shard of the map that nothing is known of yet; none without a file, since then nothing is asked for.
    pub(crate) fn lacking<'a>(
        &self,
        map: &'a ShardMap,
    ) -> Result<Option<&'a ShardName>, CredentialsError> {
        Ok(self.read()?.and_then(|file| file.lacking(map)))
    }

    fn read(&self) -> Result<Option<ShardAccessFile>, CredentialsError> {
        let Some(path) = &self.0 else {
            return Ok(None);
        };
        let path = || path.to_path_buf();
        let text = std::fs::read_to_string(path()).map_err(|source| CredentialsError::Read {
            path: path(),
            source,
        })?;
        let file = ShardAccessFile::parse(&text).map_err(|source| CredentialsError::Parse {
            path: path(),
            source,
        })?;
        Ok(Some(file))
    }
}

/// What is shown to one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    credentials: Credentials,
    shard: String,
}

impl Access {
    /// As the file says now; nothing for a shard that it does not name.
    pub(crate) fn read(&self) -> Result<Option<ShardAccess>, CredentialsError> {
        let file = self.credentials.read()?.unwrap_or_default();
        let mut shards = file.0.into_iter();
        let found = shards.find(|(name, _)| name.as_str() == self.shard);
        Ok(found.map(|(_, access)| access))
    }
}

#[cfg(test)]
mod tests {
    use ofa_crds::shard_map::Shard;

    use super::*;

    fn map(name: &str) -> ShardMap {
        let shard = Shard {
            name: name.parse().unwrap(),
            urls: vec!["nats://h:4222".into()],
            advertised_urls: vec![],
        };
        ShardMap::from_ring(1, vec![shard], 1).unwrap()
    }

    #[test]
    fn the_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shards.json");
        let credentials = Credentials::new(Some(&path));
        let (one, two) = (map("C1"), map("C2"));
        assert!(credentials.lacking(&one).is_err(), "there is no file yet");
        std::fs::write(&path, r#"{"C1": {"username": "u", "password": "p"}}"#).unwrap();
        assert_eq!(credentials.lacking(&one).unwrap(), None);
        let lacking = credentials.lacking(&two).unwrap();
        assert_eq!(lacking.map(ShardName::as_str), Some("C2"));
        assert_eq!(credentials.of("C1").read().unwrap().unwrap().password, "p");
        assert_eq!(credentials.of("C2").read().unwrap(), None);
        std::fs::write(&path, r#"{"C1": {"username": "u", "password": "q"}}"#).unwrap();
        assert_eq!(credentials.of("C1").read().unwrap().unwrap().password, "q");
        std::fs::write(&path, "{").unwrap();
        assert!(credentials.of("C1").read().is_err());
    }

    #[test]
    fn without_a_file_nothing_is_lacking() {
        let none = Credentials::default();
        assert_eq!(none.lacking(&map("C1")).unwrap(), None);
        assert_eq!(none.of("C1").read().unwrap(), None);
    }
}
