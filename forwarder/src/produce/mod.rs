//! Writing to Kafka in transactions: the requests of an idempotent, transactional producer spoken directly (KIP-98, KIP-360, KIP-447).
//!
//! librdkafka, which this is in place of, sends one partition with each request and looks at every partition before each, so that a
//! transaction over the topics of a thousand groups costs thousands of requests and millions of looks; and it allocates for each
//! record. Here records are encoded into the batch of their partition as they come, and one request has the batches of all
//! partitions that a broker leads.
//!
//! There is one way out of whatever goes wrong with records on their way: the transaction is given up, by asking the coordinator for
//! the next epoch of the producer's id. That aborts what is open, keeps requests that are still under way from being carried out
//! late, and begins the numbering of batches anew. A batch is sent again only after its broker has answered that it does not take it
//! now, with the number it had, so that none is written twice. Requests to coordinators may be repeated; where an answer to one was
//! lost, a new epoch is begun behind the commit, lest the first copy be carried out in the middle of the next transaction (what KIP-890
//! does for each transaction).

mod accumulator;
mod batch;
mod error;
mod partitions;
mod session;
mod transaction;
mod write;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

pub(crate) use accumulator::{Accumulator, TopicId};
pub(crate) use batch::NewRecord;
pub(crate) use error::{Remedy, StepError};
pub(crate) use session::{Problem, ProducerSettings, Session};
pub(crate) use transaction::{ConsumedOffsets, Membership, Step};

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
