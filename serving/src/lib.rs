//! The HTTP side of the fan-out layer.
//!
//! [`router`] tells clients which shard and which group has an asset. [`group`] streams a group's events and
//! answers for the [`state`] of its assets. [`replay`] sends again what a client of NATS missed. Every service is an [`axum::Router`] that
//! [`http::serve`] puts on a listener, with the limits that a program on a plant's network needs.

pub mod cli;
pub mod event;
pub mod group;
pub mod http;
mod kafka;
pub mod metrics;
mod origin;
pub mod query;
mod range;
pub mod replay;
pub mod router;
pub mod selection;
pub mod shutdown;
pub mod state;
mod unread;
