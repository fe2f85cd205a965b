//! Whole-system scenarios: real brokers, real NATS nodes and our own programs, as processes that are killed,
//! stopped and started again, while everything that Kafka holds is compared with what subscribers received.
//!
//! A test is a [`scene::scenario`]; what it can put on the stage is in [`scene::Scene`].

pub mod bench;
pub mod chaos;
pub mod complete;
pub mod crowd;
pub mod engine;
pub mod forwarder;
pub mod http;
mod image;
pub mod kafka;
pub mod kubectl;
pub mod kubernetes;
pub mod load;
pub mod nats;
pub mod operator;
pub mod ports;
pub mod process;
pub mod report;
pub mod scene;
pub mod serving;
pub mod sse;
pub mod subscriber;
pub mod swarm;
pub mod tools;
pub mod wait;
pub mod watch;
