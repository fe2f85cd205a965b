//! The latest value of every attribute of a group's assets.
//!
//! Kept in an embedded store together with the position up to which the stream is in it, in one transaction: after
//! a restart reading goes on from there. As upstream's table `assets` (ksqlDB's `LATEST_BY_OFFSET`), each column
//! keeps its last value that is not null.

mod api;
mod store;

pub use api::answer;
pub use store::{Change, Item, StateError, StateStore};
