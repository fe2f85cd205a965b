//! What is committed for a partition, and the metadata that goes with it.
//!
//! The committed offset is the smallest that any shard may not have, as every Kafka tool understands it.
//! When shards are behind, the metadata says where the others stand, so that a restart goes on from there
//! for them and sends only the shards behind what they miss. Whoever ignores the metadata repeats events
//! and loses none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::publish::SinkId;

/// A partition's position, by sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedPosition {
    /// The offset to commit.
    pub(crate) offset: i64,
    /// The offset to go on from for the sinks that are not behind.
    pub(crate) head: i64,
    /// The offset to go on from for each sink that is behind.
    pub(crate) behind: BTreeMap<SinkId, i64>,
}

impl CommittedPosition {
    /// The metadata to commit, empty when no sink is behind. `name` gives a sink's shard.
    pub(crate) fn metadata(&self, name: impl Fn(SinkId) -> Option<String>) -> String {
        if self.behind.is_empty() {
            return String::new();
        }
        let named = self
            .behind
            .iter()
            .filter_map(|(&sink, &offset)| Some((name(sink)?, offset)));
        let metadata = Metadata {
            head: self.head,
            behind: named.collect(),
        };
        // A map of texts and numbers always has a JSON form.
        serde_json::to_string(&metadata).unwrap_or_default()
    }
}

/// The committed metadata of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The offset to go on from for the shards that are not behind.
    pub(crate) head: i64,
    /// The offset to go on from for each shard that is behind.
    pub(crate) behind: BTreeMap<String, i64>,
}

impl Metadata {
    /// Reads committed metadata; `None` when there is none of ours, or it makes no sense.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let metadata: Self = serde_json::from_str(text).ok()?;
        let sensible = !metadata.behind.is_empty()
            && metadata
                .behind
                .values()
                .all(|&offset| 0 <= offset && offset <= metadata.head);
        sensible.then_some(metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_back_as_written() {
        let behind = BTreeMap::from([(SinkId(1), 5), (SinkId(2), 7)]);
        let position = CommittedPosition {
            offset: 5,
            head: 90,
            behind,
        };
        let text = position.metadata(|sink| Some(format!("C{}", sink.0)));
        assert_eq!(text, r#"{"head":90,"behind":{"C1":5,"C2":7}}"#);
        let read = Metadata::parse(&text).unwrap();
        assert_eq!((read.head, read.behind["C2"]), (90, 7));
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        for text in [
            "",
            "x",
            "{}",
            r#"{"head":1,"behind":{}}"#,
            r#"{"head":1,"behind":{"C1":2}}"#,
        ] {
            assert_eq!(Metadata::parse(text), None, "{text}");
        }
    }
}
