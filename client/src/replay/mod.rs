//! What a subscription missed, asked of the replay service.
//!
//! [`join`] decides when and for what; [`service`] asks for all subscriptions of a client together ([`batch`]).

mod batch;
pub(crate) mod join;
mod question;
mod service;
#[cfg(test)]
mod simulation;

pub(crate) use join::Join;
pub(crate) use question::{Part, Scope};
pub use service::ReplayError;
pub(crate) use service::Replayer;
