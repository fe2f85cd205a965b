//! The latest value of every attribute of a group's assets.
//!
//! Kept in an embedded store together with the position up to which the stream is in it, in one transaction: after
//! a restart reading goes on from there. As upstream's table `assets` (ksqlDB's `LATEST_BY_OFFSET`), each column
//! keeps its last value that is not null. Where the group's engine is ksqlDB, that table is asked itself.

mod api;
mod item;
mod ksql;
mod store;
mod unwritten;

pub use api::State;
pub use item::{Change, Item};
pub use ksql::{KsqlState, KsqlStateError};
pub use store::{StateError, StateStore};
