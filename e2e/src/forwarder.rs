//! Forwarders as processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::nats::Shard;
use crate::process::Process;
use crate::{http, ports, tools, wait};

/// How long a forwarder may take to join its group, which may first have to give up a dead member.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a clean shutdown may take: longer than the forwarder's own deadline for what is on its way.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// What a forwarder is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name, also of its NATS connections.
    pub member: String,
    /// Kafka.
    pub broker: String,
    /// Topic to read.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// Each shard's name and its nodes' URLs, separated by commas.
    pub shards: Vec<(String, String)>,
    /// Further variables; they win over the above.
    pub variables: Vec<(String, String)>,
}

impl Settings {
    /// Shards as settings name them.
    #[must_use]
    pub fn urls_of(shards: &[Shard]) -> Vec<(String, String)> {
        let pair = |shard: &Shard| (shard.name().to_owned(), shard.urls());
        shards.iter().map(pair).collect()
    }
}

/// A running forwarder.
#[derive(Debug)]
pub struct Forwarder {
    settings: Settings,
    address: SocketAddr,
    metrics: PathBuf,
    process: Process,
}

impl Forwarder {
    /// Starts a forwarder; it is not waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(settings: Settings, folder: &Path) -> Result<Self> {
        let address = ports::free()?;
        let mut command = tools::own("forwarder")?;
        command
            .arg("forward")
            .env("KAFKA_BROKER", &settings.broker)
            .env("KAFKA_TOPIC", &settings.topic)
            .env("KAFKA_GROUP", &settings.group)
            .env("KAFKA_AUTO_OFFSET_RESET", "earliest")
            .env("APP_UUID", &settings.member)
            .env("BIND_ADDRESS", address.ip().to_string())
            .env("PORT", address.port().to_string());
        for (name, urls) in &settings.shards {
            command.env(format!("NATS_CLUSTER_{name}"), urls);
        }
        command.envs(settings.variables.iter().cloned());
        let process = Process::start(&settings.member, folder, command)?;
        let member = settings.member.clone();
        Ok(Self {
            settings,
            address,
            metrics: folder.join(format!("{member}.metrics")),
            process,
        })
    }

    /// Its name.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.settings.member
    }

    /// What it was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it is not within 30 s, or has ended.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let address = self.address;
        let process = &mut self.process;
        let what = format!("{} to be ready", process.name());
        wait::until(&what, READY_TIMEOUT, async || {
            if let Some(status) = process.ended()? {
                anyhow::bail!(
                    "{} has ended ({status}): {}",
                    process.name(),
                    process.tail(5)
                );
            }
            Ok(http::get(address, "/ready")
                .await
                .is_ok_and(|(status, _)| status == 200))
        })
        .await
    }

    /// All its metrics, as text for [`http::metric`].
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::get(self.address, "/metrics").await?.1)
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text = self.metrics().await?;
        Ok(http::metric(&text, name, labels))
    }

    /// How many partitions it reads.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn partitions(&self) -> Result<usize> {
        let text = self.metrics().await?;
        let mine = |line: &&str| line.starts_with("asset_forwarder_committed_offset{");
        Ok(text.lines().filter(mine).count())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM; it must end by itself, and well.
    ///
    /// # Errors
    /// When it does not end within 15 s, or with a failure.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(STOP_TIMEOUT).await?;
        anyhow::ensure!(
            status.success(),
            "{} ended with {status}",
            self.settings.member
        );
        Ok(())
    }
}

impl Drop for Forwarder {
    /// Keeps its last metrics beside its log, for a scenario that fails.
    fn drop(&mut self) {
        if let Ok(metrics) = http::last_words(self.address, "/metrics") {
            let _ = std::fs::write(&self.metrics, metrics);
        }
    }
}
