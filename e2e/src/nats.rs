//! Shards of real nodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::Process;
use crate::{http, ports, tools, wait};

/// How long a node may take until it answers and has found the others.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long forwarders may take to open a session with a shard.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

/// One node.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    client: SocketAddr,
    cluster: SocketAddr,
    monitor: SocketAddr,
    process: Option<Process>,
}

/// One shard: nodes that form a cluster.
#[derive(Debug)]
pub struct Shard {
    name: String,
    nodes: Vec<Node>,
}

impl Shard {
    /// Starts a shard with files and logs in `folder` and waits until its nodes have found each other.
    ///
    /// # Errors
    /// When a node cannot be started.
    pub async fn start(name: &str, nodes: usize, folder: &Path) -> Result<Self> {
        let nodes = (0..nodes)
            .map(|index| Node::new(&format!("{name}-{index}"), folder))
            .collect::<Result<_>>()?;
        let mut shard = Self {
            name: name.to_owned(),
            nodes,
        };
        let routes = shard.routes();
        for node in &mut shard.nodes {
            node.write_config(name, &routes)?;
            node.spawn()?;
        }
        for node in 0..shard.nodes.len() {
            shard.wait_ready(node).await?;
        }
        Ok(shard)
    }

    /// Name on the hash ring.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Client URLs of all nodes, separated by commas.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Node::url).collect();
        urls.join(",")
    }

    /// `kill -9` of a node.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        node.process.take().context("the node does not run")?.kill()
    }

    /// Starts a killed node again and waits until it is back in its cluster.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].spawn()?;
        self.wait_ready(node).await
    }

    /// SIGSTOP: the node keeps its connections and does nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::CONT)
    }

    /// The node that the forwarder called `member` publishes to.
    ///
    /// # Errors
    /// When it publishes to none within 20 s.
    pub async fn published_to(&self, member: &str) -> Result<usize> {
        // The witness' connection has a subscription, the publisher's has none.
        self.node_with("a forwarder's connection", |connection| {
            connection["name"] == member && connection["subscriptions"] == 0
        })
        .await
    }

    /// The node that a client of this name is connected to.
    ///
    /// # Errors
    /// When it is connected to none within 20 s.
    pub async fn node_of_client(&self, name: &str) -> Result<usize> {
        self.node_with("a client's connection", |connection| {
            connection["name"] == name
        })
        .await
    }

    /// What clients of this name are subscribed to, sorted.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn subjects_of_client(&self, name: &str) -> Result<Vec<String>> {
        let mut subjects = Vec::new();
        for node in &self.nodes {
            let answer = http::get_json(node.monitor, "/connz?subs=1").await?;
            let connections = answer["connections"].as_array().into_iter().flatten();
            for connection in connections.filter(|it| it["name"] == name) {
                let all = connection["subscriptions_list"].as_array();
                let texts = all.into_iter().flatten().filter_map(Value::as_str);
                subjects.extend(texts.map(str::to_owned));
            }
        }
        subjects.sort();
        Ok(subjects)
    }

    async fn node_with(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<usize> {
        wait::for_some(what, SESSION_TIMEOUT, async || {
            for (index, node) in self.nodes.iter().enumerate() {
                // A node that is down has nobody's connection.
                let Ok(answer) = http::get_json(node.monitor, "/connz").await else {
                    continue;
                };
                let connections = answer["connections"].as_array();
                if connections.is_some_and(|all| all.iter().any(&wanted)) {
                    return Ok(Some(index));
                }
            }
            Ok(None)
        })
        .await
    }

    fn routes(&self) -> String {
        let routes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("nats-route://{}", node.cluster))
            .collect();
        routes.join(", ")
    }

    async fn wait_ready(&self, node: usize) -> Result<()> {
        let (node, others) = (&self.nodes[node], self.nodes.len() - 1);
        let what = format!("{} to find its {others} neighbours", node.name);
        wait::until(&what, START_TIMEOUT, async || {
            let Ok(answer) = http::get_json(node.monitor, "/varz").await else {
                return Ok(false);
            };
            // Several connections a pair of nodes.
            Ok(others == 0 || answer["routes"].as_u64().is_some_and(|routes| routes > 0))
        })
        .await
        .with_context(|| {
            node.process
                .as_ref()
                .map(|it| it.tail(10))
                .unwrap_or_default()
        })
    }
}

impl Node {
    fn new(name: &str, folder: &Path) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            client: ports::free()?,
            cluster: ports::free()?,
            monitor: ports::free()?,
            process: None,
        })
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Client URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.client)
    }

    /// Where it answers about itself.
    #[must_use]
    pub fn monitor(&self) -> SocketAddr {
        self.monitor
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("the node does not run")?;
        process.signal(signal)
    }

    /// What the operator's configuration says where it matters to delivery, without users and TLS.
    fn write_config(&self, cluster: &str, routes: &str) -> Result<()> {
        let Self {
            name,
            client,
            cluster: route,
            monitor,
            ..
        } = self;
        let text = format!(
            "server_name: {name}\nlisten: \"{client}\"\nhttp: \"{monitor}\"\n\
             max_payload: {MAX_PAYLOAD}\nmax_pending: 16777216\nno_fast_producer_stall: true\n\
             cluster {{ name: \"{cluster}\", listen: \"{route}\", routes: [{routes}] }}\n"
        );
        std::fs::write(self.config(), text).context("nats.conf cannot be written")
    }

    fn spawn(&mut self) -> Result<()> {
        let mut command = tools::server("nats-server")?;
        command.arg("-c").arg(self.config());
        self.process = Some(Process::start(&self.name, &self.folder, command)?);
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.conf", self.name))
    }
}

/// Largest message of these shards in bytes, as the operator configures it.
pub const MAX_PAYLOAD: usize = 2 * 1024 * 1024;
