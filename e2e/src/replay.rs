//! The replay service as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::router::of_shards;
use crate::{http, ports, tools, wait};

/// How long it may take until it has read the topic's end.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running replay service.
#[derive(Debug)]
pub struct Replay {
    address: SocketAddr,
    variables: Vec<(String, String)>,
    process: Option<Process>,
}

impl Replay {
    /// Starts a service for a topic and these shards (name, and URLs separated by commas) and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(
        broker: &str,
        topic: &str,
        shards: &[(String, String)],
        folder: &Path,
    ) -> Result<Self> {
        Self::begin(broker, topic, of_shards(shards), folder).await
    }

    /// The same where forwarders publish what stands in the topic.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn verbatim(
        broker: &str,
        topic: &str,
        shards: &[(String, String)],
        folder: &Path,
    ) -> Result<Self> {
        let mut variables = of_shards(shards);
        variables.push(("PAYLOAD".to_owned(), "Verbatim".to_owned()));
        Self::begin(broker, topic, variables, folder).await
    }

    /// Starts a service for a topic that follows a pool's shard map, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn of_pool(broker: &str, topic: &str, pool: &str, folder: &Path) -> Result<Self> {
        let follows = ("FORWARDER_POOL".to_owned(), pool.to_owned());
        Self::begin(broker, topic, vec![follows], folder).await
    }

    async fn begin(
        broker: &str,
        topic: &str,
        mut variables: Vec<(String, String)>,
        folder: &Path,
    ) -> Result<Self> {
        let address = ports::free()?;
        let settings = [
            ("KAFKA_BROKER", broker.to_owned()),
            ("KAFKA_TOPIC", topic.to_owned()),
            ("BIND_ADDRESS", address.ip().to_string()),
            ("PORT", address.port().to_string()),
        ];
        variables.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        let mut replay = Self {
            address,
            variables,
            process: None,
        };
        replay.restart(folder).await?;
        Ok(replay)
    }

    /// Starts it, again if it was killed, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&mut self, folder: &Path) -> Result<()> {
        let mut command = tools::own("serving")?;
        command.arg("replay").envs(self.variables.iter().cloned());
        self.process = Some(Process::start("replay", folder, command)?);
        let address = self.address;
        wait::until(
            "the replay service to be ready",
            READY_TIMEOUT,
            async || {
                Ok(http::get(address, "/ready")
                    .await
                    .is_ok_and(|(status, _)| status == 200))
            },
        )
        .await
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => anyhow::bail!("the replay service does not run"),
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let (_, text) = http::get(self.address, "/metrics").await?;
        Ok(http::metric(&text, name, labels))
    }
}
