//! The routing layer as a process.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::replay::Replay;
use crate::{http, ports, tools, wait};

/// How long it may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A running router.
#[derive(Debug)]
pub struct Router {
    url: String,
    _process: Process,
}

impl Router {
    /// Starts a router of these shards (name, and URLs separated by commas) and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn of_shards(shards: &[(String, String)], folder: &Path) -> Result<Self> {
        Self::start(of_shards(shards), folder).await
    }

    /// The same, and clients are told of a replay service.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn with_replay(
        shards: &[(String, String)],
        replay: &Replay,
        folder: &Path,
    ) -> Result<Self> {
        let mut variables = of_shards(shards);
        variables.push(("REPLAY_URL".to_owned(), replay.url()));
        Self::start(variables, folder).await
    }

    /// Starts a router that follows a pool's shard map, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn of_pool(broker: &str, pool: &str, folder: &Path) -> Result<Self> {
        let variables = vec![
            ("KAFKA_BROKER".to_owned(), broker.to_owned()),
            ("FORWARDER_POOL".to_owned(), pool.to_owned()),
        ];
        Self::start(variables, folder).await
    }

    /// The same, and clients are told of a replay service.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn of_pool_with_replay(
        broker: &str,
        pool: &str,
        replay: &Replay,
        folder: &Path,
    ) -> Result<Self> {
        let variables = vec![
            ("KAFKA_BROKER".to_owned(), broker.to_owned()),
            ("FORWARDER_POOL".to_owned(), pool.to_owned()),
            ("REPLAY_URL".to_owned(), replay.url()),
        ];
        Self::start(variables, folder).await
    }

    async fn start(variables: Vec<(String, String)>, folder: &Path) -> Result<Self> {
        let address = ports::free()?;
        let mut command = tools::own("serving")?;
        command
            .arg("router")
            .env("BIND_ADDRESS", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .envs(variables);
        let process = Process::start("router", folder, command)?;
        wait::until("the router to be ready", READY_TIMEOUT, async || {
            Ok(http::get(address, "/ready")
                .await
                .is_ok_and(|(status, _)| status == 200))
        })
        .await?;
        Ok(Self {
            url: format!("http://{address}"),
            _process: process,
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Shards as programs take them from their environment.
pub(crate) fn of_shards(shards: &[(String, String)]) -> Vec<(String, String)> {
    shards
        .iter()
        .map(|(name, urls)| (format!("NATS_CLUSTER_{name}"), urls.clone()))
        .collect()
}
