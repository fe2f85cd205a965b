//! Stage 1, consume: records from Kafka in chunks, and partitions that come and go.

mod context;
mod headers;
mod queue;
mod range_reader;
mod source;

pub(crate) use context::Rebalance;
pub(crate) use headers::Headers;
pub(crate) use queue::{Chunk, Taken};
pub(crate) use range_reader::RangeReader;
pub use source::SourceError;
pub(crate) use source::{Source, SourceSettings};
