//! Stage 1, consume: records from Kafka in chunks, and partitions that come and go.
//!
//! librdkafka is the member of the consumer group; the records themselves are read by [`crate::fetch`].

mod context;
mod error;
mod membership;
mod range_reader;
mod source;

pub(crate) use crate::fetch::{Chunk, Taken};
pub(crate) use context::Rebalance;
pub use error::SourceError;
pub(crate) use range_reader::RangeReader;
pub(crate) use source::{GroupProtocol, Source, SourceSettings};
