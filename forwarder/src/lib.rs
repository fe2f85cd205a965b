//! The data plane: from one Kafka topic to the NATS shards that have its assets, and to the topics of
//! their groups ([`derive`]).
//!
//! Four stages, a folder each: [`consume`] takes records from Kafka, [`route`] turns each into the bytes
//! its shard gets, [`publish`] holds them until a second node of the shard has witnessed them, [`commit`]
//! works out how far Kafka may be told. [`pump`] drives them.

mod commit;
mod consume;
mod credentials;
mod dead_letters;
mod derive;
mod fetch;
mod forward;
mod health;
mod http;
#[cfg(feature = "internals")]
pub mod internals;
mod kafka;
mod log_limit;
mod maps;
mod metrics;
mod produce;
mod publish;
mod pump;
mod route;
mod settings;
mod shards;
#[cfg(test)]
mod simulation;
mod slot;
mod tls;

pub use consume::SourceError;
pub use derive::{DeriveArgs, DeriveError, Format as DerivedFormat, run as derive};
pub use forward::{ForwardError, run as forward};
pub use route::{PayloadFormat, Poison};
pub use settings::{ForwardArgs, SettingsError};
