//! The three kinds of `fanout.openfactory.io/v1alpha1`.

mod asset_group;
mod common;
mod conditions;
mod forwarder_pool;
mod nats_shard;

pub use asset_group::*;
pub use common::*;
pub use conditions::*;
pub use forwarder_pool::*;
pub use nats_shard::*;

/// API group of all kinds.
pub const GROUP: &str = "fanout.openfactory.io";

/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Annotation that pauses a resource without a change to its spec (value `true`).
pub const PAUSED_ANNOTATION: &str = "fanout.openfactory.io/paused";

/// Annotation whose change, to any text, takes in what a newer operator would build in another way (condition
/// `RolloutPending`).
pub const ROLL_OUT_ANNOTATION: &str = "fanout.openfactory.io/roll-out";
