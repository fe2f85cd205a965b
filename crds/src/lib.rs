//! The contract that every part of the fan-out layer shares.
//!
//! Resources ([`api`]), names and subjects ([`names`], [`subject`]), which shard has an asset
//! ([`shard_map`], [`ring`]), groups of assets ([`groups`]), positions in a stream ([`cursor`]), what travels
//! on the control topic ([`control`]) and the wire formats of OpenFactory ([`wire`],
//! [`payload`]), ksqlDB's ([`ksql`]), and the replay service's protocol ([`replay`]). All of it is pure.
//!
//! The feature `kube` adds the `CustomResource` derives; without it no Kubernetes code is built. The feature
//! `kafka` adds the one module with I/O: a Kafka client's settings and the control topic.

pub mod api;
pub mod control;
pub mod cursor;
pub mod groups;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod ksql;
pub mod names;
pub mod payload;
pub mod replay;
pub mod ring;
pub mod shard_access;
pub mod shard_map;
pub mod subject;
pub mod wire;

pub use control::{Ack, ControlKey, ControlRole, GroupService, MixedPartitions};
pub use cursor::Cursor;
pub use groups::{GroupName, GroupingStrategy, UnsEntry, UnsLevel};
pub use names::{AssetUuid, KeyError, ShardName};
pub use shard_access::{ShardAccess, ShardAccessFile};
pub use shard_map::{HandoverPhase, KeyHash, Move, Shard, ShardMap};
