//! What travels on the compacted control topic: shard maps one way, acknowledgements the other.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `map/<pool>` | [`ShardMap`](crate::ShardMap) as JSON | the operator |
//! | `mixed/<pool>` | [`MixedPartitions`] as JSON, a tombstone when nothing is known of any | the replay service |
//! | `ack/<pool>/<role>/<member>` | [`Ack`] as JSON, a tombstone when the member leaves | forwarders, routers |
//! | `group/<topic>` | [`GroupService`] as JSON | the operator |
//! | `wanted/<topic>/<member>` | [`Wanted`] as JSON, a tombstone when the service has gone to sleep | routers, groups' services |
//!
//! Nothing else connects the operator with the data plane, so the data plane runs on without it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::groups::GroupName;

/// The control topic unless settings name another.
pub const DEFAULT_TOPIC: &str = "ofa_shard_map";

/// Who acknowledges a shard map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlRole {
    /// Publishes by the map.
    Forwarder,
    /// Answers clients by the map.
    Router,
}

impl ControlRole {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarder => "forwarder",
            Self::Router => "router",
        }
    }
}

/// A member's word that it acts by this epoch from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The epoch the member acts by.
    pub epoch: u64,
    /// When it began to, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// Assets that have events on two partitions, so that their order is that of each partition only: their producers
/// place keys by different rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MixedPartitions {
    /// How many such assets were found.
    pub assets: u64,
    /// The last one.
    pub example: String,
    /// Two partitions that it has events on.
    pub partitions: [u32; 2],
}

/// The service of a group, by which routers find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupService {
    /// The group.
    pub group: GroupName,
    /// Level of the Unified Namespace it is a value of.
    pub level: String,
    /// `http://host:port` of its service; `None` while none is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether a request wakes it; otherwise there is nothing to do but to wait.
    #[serde(default)]
    pub on_demand: bool,
    /// Who writes its stream, where that is a consumer group: how far it is behind is how far the group's events are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<StreamReader>,
}

/// A consumer group and the topic it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamReader {
    /// The consumer group.
    pub consumer_group: String,
    /// The topic it reads.
    pub topic: String,
}

/// Somebody's word that a group's service is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// When it was, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A key of the control topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ControlKey {
    /// A pool's shard map.
    Map {
        /// `<namespace>.<name>` of the ForwarderPool, or any name a stand-alone pool goes by.
        pool: String,
    },
    /// What is known of assets on two partitions of a pool's topic.
    Mixed {
        /// The pool that forwards the topic.
        pool: String,
    },
    /// One member's acknowledgement.
    Ack {
        /// The pool whose map is acknowledged.
        pool: String,
        /// What the member is.
        role: ControlRole,
        /// The member's name, unique in its pool and role.
        member: String,
    },
    /// The service of a group.
    Group {
        /// Topic of the group's stream: what tells the groups of one Kafka apart.
        topic: String,
    },
    /// Somebody's need of a group's service.
    Wanted {
        /// Topic of the group's stream.
        topic: String,
        /// Who needs it.
        member: String,
    },
}

/// A key that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no key of the control topic (map/<pool>, mixed/<pool>, ack/<pool>/<role>/<member>, group/<topic> or wanted/<topic>/<member>)"
)]
pub struct ControlKeyError(String);

impl fmt::Display for ControlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map { pool } => write!(f, "map/{pool}"),
            Self::Mixed { pool } => write!(f, "mixed/{pool}"),
            Self::Ack { pool, role, member } => write!(f, "ack/{pool}/{}/{member}", role.as_str()),
            Self::Group { topic } => write!(f, "group/{topic}"),
            Self::Wanted { topic, member } => write!(f, "wanted/{topic}/{member}"),
        }
    }
}

impl FromStr for ControlKey {
    type Err = ControlKeyError;

    fn from_str(text: &str) -> Result<Self, ControlKeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["map", pool] if !pool.is_empty() => Ok(Self::Map {
                pool: pool.to_owned(),
            }),
            ["mixed", pool] if !pool.is_empty() => Ok(Self::Mixed {
                pool: pool.to_owned(),
            }),
            ["ack", pool, role, member] if !pool.is_empty() && !member.is_empty() => {
                let role = match role {
                    "forwarder" => ControlRole::Forwarder,
                    "router" => ControlRole::Router,
                    _ => return Err(ControlKeyError(text.to_owned())),
                };
                Ok(Self::Ack {
                    pool: pool.to_owned(),
                    role,
                    member: member.to_owned(),
                })
            }
            ["group", topic] if !topic.is_empty() => Ok(Self::Group {
                topic: topic.to_owned(),
            }),
            ["wanted", topic, member] if !topic.is_empty() && !member.is_empty() => {
                Ok(Self::Wanted {
                    topic: topic.to_owned(),
                    member: member.to_owned(),
                })
            }
            _ => Err(ControlKeyError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_as_written() {
        for text in [
            "map/plant.line-1",
            "mixed/plant.line-1",
            "ack/plant.line-1/forwarder/f-0",
            "ack/p/router/r",
            "group/asset_stream_WC--1_topic",
            "wanted/asset_stream_Weld_topic/router-0",
        ] {
            assert_eq!(
                text.parse::<ControlKey>().map(|key| key.to_string()),
                Ok(text.to_owned())
            );
        }
        for bad in [
            "",
            "map/",
            "map/a/b",
            "ack/p/cook/m",
            "ack/p/router/",
            "group/",
            "wanted/t/",
            "x",
        ] {
            assert!(bad.parse::<ControlKey>().is_err(), "{bad:?}");
        }
    }
}
