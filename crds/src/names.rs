//! Names that arrive from outside, parsed once into closed types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name of a Kafka topic in bytes. Source: `org.apache.kafka.common.internals.Topic`, as all of the rule.
const MAX_TOPIC_NAME: usize = 249;

/// Whether the name of a Kafka topic may have a character.
#[must_use]
pub const fn is_topic_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

/// Whether Kafka takes a name for a topic.
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    (1..=MAX_TOPIC_NAME).contains(&name.len())
        && name.chars().all(is_topic_char)
        && !matches!(name, "." | "..")
}

/// Why a Kafka record key names no asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum KeyError {
    /// The record has no key.
    #[error("the record has no key; produce it with the asset's UUID as key")]
    Null,
    /// The key has no bytes.
    #[error("the record's key is empty; produce it with the asset's UUID as key")]
    Empty,
    /// The key is not UTF-8.
    #[error("the record's key is not UTF-8; produce it with the asset's UUID as plain text")]
    NotUtf8,
}

/// The asset a record's key names, borrowed from the record.
///
/// # Errors
/// A null, empty or non-UTF-8 key names no asset.
pub fn asset_of_key(key: Option<&[u8]>) -> Result<&str, KeyError> {
    match key {
        None => Err(KeyError::Null),
        Some([]) => Err(KeyError::Empty),
        Some(bytes) => std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8),
    }
}

/// An asset's UUID: any text that is not empty, case kept, as OpenFactory uses it for the record key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AssetUuid(String);

impl AssetUuid {
    /// The text as it stands in the Kafka key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AssetUuid {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        asset_of_key(Some(text.as_bytes())).map(|uuid| Self(uuid.to_owned()))
    }
}

impl TryFrom<String> for AssetUuid {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<AssetUuid> for String {
    fn from(uuid: AssetUuid) -> Self {
        uuid.0
    }
}

impl fmt::Display for AssetUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' cannot name a shard: use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"
)]
pub struct ShardNameError(String);

/// The name of a NATS shard on the hash ring (upstream: the cluster's name). Case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShardName(String);

impl ShardName {
    /// Longest name, in bytes: that of a Kubernetes label value, which carries it on every object.
    pub const MAX_LEN: usize = 63;

    /// The name as it is hashed onto the ring.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShardName {
    type Err = ShardNameError;

    fn from_str(text: &str) -> Result<Self, ShardNameError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let starts_well = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if starts_well && text.len() <= Self::MAX_LEN && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ShardNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ShardName {
    type Error = ShardNameError;

    fn try_from(text: String) -> Result<Self, ShardNameError> {
        text.parse()
    }
}

impl From<ShardName> for String {
    fn from(name: ShardName) -> Self {
        name.0
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_called_as_kafka_allows() {
        let longest = "t".repeat(MAX_TOPIC_NAME);
        for name in ["ofa_assets", "a.b-C_9", "...", &longest] {
            assert!(is_topic_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "ä",
            "a\r\nb",
            &format!("{longest}t"),
        ] {
            assert!(!is_topic_name(name), "{name}");
        }
    }

    #[test]
    fn a_key_names_an_asset_only_when_it_is_text() {
        assert_eq!(asset_of_key(None), Err(KeyError::Null));
        assert_eq!(asset_of_key(Some(b"")), Err(KeyError::Empty));
        assert_eq!(asset_of_key(Some(&[0xff, 0xfe])), Err(KeyError::NotUtf8));
        assert_eq!(asset_of_key(Some(b"OKUMA.123456")), Ok("OKUMA.123456"));
    }

    #[test]
    fn shard_names_are_bounded_and_plain() {
        assert!("C1".parse::<ShardName>().is_ok());
        for bad in ["", "-a", "a b", "a/b", &"x".repeat(64)] {
            assert!(bad.parse::<ShardName>().is_err(), "{bad:?}");
        }
    }
}
