//! Stage 1, consume: records from Kafka in chunks, and partitions that come and go.

mod context;
mod queue;
mod source;

pub(crate) use context::Rebalance;
pub(crate) use queue::{Chunk, Taken};
pub use source::SourceError;
pub(crate) use source::{Source, SourceSettings};
