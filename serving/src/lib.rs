//! The HTTP side of the fan-out layer.
//!
//! [`router`] tells clients which shard has an asset. Every service is an [`axum::Router`] that
//! [`http::serve`] puts on a listener, with the limits that a program on a plant's network needs.

pub mod cli;
pub mod http;
pub mod metrics;
pub mod router;
pub mod shutdown;
