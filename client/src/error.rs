//! What can go wrong before a subscription stands. Afterwards everything is an [`Item`](crate::Item).

use std::sync::Arc;

use thiserror::Error;

use crate::replay::ReplayError;
use crate::router::RouterError;

/// Why a subscription could not begin.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The routing layer gave no answer.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The addresses of a shard's nodes cannot be used.
    #[error(
        "shard {shard} cannot be connected to at {urls}: {source}; check the addresses that the router answers"
    )]
    Connect {
        /// The shard.
        shard: String,
        /// Its nodes.
        urls: String,
        /// Why.
        source: async_nats::ConnectError,
    },
    /// NATS refused the subject.
    #[error("shard {shard} cannot be subscribed to on '{subject}': {source}")]
    Subscribe {
        /// The shard.
        shard: String,
        /// The subject.
        subject: String,
        /// Why.
        source: async_nats::SubscribeError,
    },
    /// The subscription was to resume, and nobody has what was missed.
    #[error("cannot resume from a cursor: {0}")]
    Resume(Arc<ReplayError>),
    /// The end of the topic cannot be told.
    #[error(transparent)]
    Replay(Arc<ReplayError>),
    /// The shard map has no such shard.
    #[error("there is no shard '{name}'; there are: {known}")]
    UnknownShard {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}
