//! The contract that every part of the fan-out layer shares.
//!
//! Resources ([`api`]), names and subjects ([`names`], [`subject`]), which shard has an asset
//! ([`shard_map`], [`ring`]), positions in a stream ([`cursor`]), what travels on the control topic
//! ([`control`]) and the wire formats of OpenFactory ([`wire`]). Everything here is pure: no I/O.
//!
//! The feature `kube` adds the `CustomResource` derives; without it no Kubernetes code is built.

pub mod api;
pub mod control;
pub mod cursor;
pub mod names;
pub mod ring;
pub mod shard_map;
pub mod subject;
pub mod wire;

pub use control::{Ack, ControlKey, ControlRole};
pub use cursor::Cursor;
pub use names::{AssetUuid, KeyError, ShardName};
pub use shard_map::{KeyHash, Move, Shard, ShardMap};
