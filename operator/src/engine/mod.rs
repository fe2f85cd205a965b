//! What makes derived streams.

pub mod ksqldb;
