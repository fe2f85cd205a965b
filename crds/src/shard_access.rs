//! The file by which forwarders authenticate at shards: what the operator writes and forwarders read.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ShardMap, ShardName};

/// What is shown to the nodes of one shard, and asked of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardAccess {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// Certificates of the authorities that vouch for the nodes, in PEM; needed where they use TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<String>,
}

/// Passwords stay out of logs.
impl fmt::Debug for ShardAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardAccess")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The file's content: shards by their names on the ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardAccessFile(pub BTreeMap<ShardName, ShardAccess>);

impl ShardAccessFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is not what the operator writes.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// A shard of the map that cannot be used with this file.
    #[must_use]
    pub fn lacking<'a>(&self, map: &'a ShardMap) -> Option<&'a ShardName> {
        let mut names = map.shards().iter().map(|shard| &shard.name);
        names.find(|name| !self.0.contains_key(*name))
    }
}

/// The file's text.
impl fmt::Display for ShardAccessFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard_map::Shard;

    fn file() -> ShardAccessFile {
        let access = |ca: Option<&str>| ShardAccess {
            username: "forwarder".into(),
            password: "secret".into(),
            ca_certificate: ca.map(ToOwned::to_owned),
        };
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let shards = [("C1", access(None)), ("C2", access(Some(pem)))];
        ShardAccessFile(
            shards
                .map(|(name, access)| (name.parse().unwrap(), access))
                .into(),
        )
    }

    #[test]
    fn what_is_written_is_read() {
        let text = file().to_string();
        insta::assert_snapshot!(text);
        assert_eq!(ShardAccessFile::parse(&text).unwrap(), file());
        assert!(!format!("{:?}", file()).contains("secret"));
        for bad in ["", "[]", "{\"C1\": {\"username\": \"u\"}}", "{\"a b\": {}}"] {
            ShardAccessFile::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn a_shard_that_is_not_named_is_lacking() {
        let map = |names: &[&str]| {
            let shards = names.iter().map(|name| Shard {
                name: name.parse().unwrap(),
                urls: vec!["nats://h:4222".into()],
                advertised_urls: vec![],
            });
            ShardMap::from_ring(1, shards.collect(), 8).unwrap()
        };
        assert_eq!(file().lacking(&map(&["C1", "C2"])), None);
        let map = map(&["C1", "C2", "C3"]);
        assert_eq!(file().lacking(&map).map(ShardName::as_str), Some("C3"));
    }
}
