//! Stage 3, publish: batches of frames to a shard, held until a second node has witnessed them.

mod batch;
mod connection;
mod notices;
mod protocol;
mod session;
mod shard;
mod window;

pub(crate) use batch::{Batch, Span};
pub(crate) use notices::Notices;
#[cfg(feature = "internals")]
pub(crate) use protocol::parse;
pub(crate) use session::WitnessMode;
pub(crate) use shard::{ShardHandle, ShardSettings, spawn};
#[cfg(test)]
pub(crate) use window::Window;

/// One destination of records, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SinkId(pub(crate) u32);

/// Offsets that a sink has for good.
#[derive(Debug)]
pub(crate) struct Confirmed {
    pub(crate) sink: SinkId,
    pub(crate) spans: Vec<Span>,
}
