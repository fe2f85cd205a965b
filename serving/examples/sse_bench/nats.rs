//! The programs that feed a service through NATS.

use std::process::{Child, Command};

use anyhow::{Context, Result};

use crate::bench::program;
use crate::clients::wait_ready;

const NODE: u16 = 15_222;
const FORWARDER: u16 = 15_001;
const ROUTER: u16 = 15_002;
const REPLAY: u16 = 15_003;

pub(crate) const ROUTER_URL: &str = "http://127.0.0.1:15002";
const REPLAY_URL: &str = "http://127.0.0.1:15003";

/// A node, and what fills it with the topic's events.
pub(crate) struct NatsFeed(Vec<Child>);

impl NatsFeed {
    pub(crate) async fn start(broker: &str, topic: &str) -> Result<Self> {
        let mut feed = Self(Vec::new());
        let mut node = Command::new("nats-server");
        node.args(["-a", "127.0.0.1", "-p", &NODE.to_string()]);
        let node = node.spawn().context("nats-server has to be on PATH")?;
        feed.0.push(node);
        for (name, command, port) in [
            ("forwarder", "forward", FORWARDER),
            ("serving", "replay", REPLAY),
            ("serving", "router", ROUTER),
        ] {
            let mut started = program(name)?;
            started
                .args([command, "--log-level=warn"])
                .env("KAFKA_BROKER", broker)
                .env("KAFKA_TOPIC", topic)
                .env("KAFKA_GROUP", topic)
                .env("KAFKA_AUTO_OFFSET_RESET", "earliest")
                .env("NATS_CLUSTER_C1", format!("nats://127.0.0.1:{NODE}"))
                .env("PAYLOAD", "Verbatim")
                .env("PORT", port.to_string());
            if command == "router" {
                started.env("REPLAY_URL", REPLAY_URL);
            }
            feed.0.push(started.spawn().context(command)?);
            wait_ready(port).await?;
        }
        Ok(feed)
    }
}

impl Drop for NatsFeed {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
