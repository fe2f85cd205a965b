//! Kafka's protocol: connections to brokers, secured as the settings say. What is asked over them is said in
//! [`crate::fetch`] and [`crate::produce`].

mod connection;
mod error;
pub(crate) mod layout;
mod metadata;
mod scram;
mod security;

pub(crate) use connection::Connection;
pub(crate) use error::BrokerError;
pub(crate) use metadata::{METADATA_VERSIONS, addresses, brokers_of, metadata_request};
pub(crate) use security::Security;
