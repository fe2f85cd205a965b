//! Groups' services as processes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::{http, ports, tools, wait};

/// How long it may take until it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// One instance of a group's service.
#[derive(Debug)]
pub struct GroupService {
    name: String,
    address: SocketAddr,
    variables: Vec<(String, String)>,
    process: Option<Process>,
}

impl GroupService {
    /// An instance called `name` for a topic; further `variables` win over the usual ones. It does not run yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(name: &str, broker: &str, topic: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let address = ports::free()?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let usual = [
            ("ASSET_GROUP", "Weld"),
            ("GROUP_TOPIC", topic),
            ("KAFKA_BROKER", broker),
            ("APP_UUID", name),
            ("BIND_ADDRESS", &host),
            ("PORT", &port),
        ];
        let all = usual.iter().chain(variables);
        Ok(Self {
            name: name.to_owned(),
            address,
            variables: all
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            process: None,
        })
    }

    /// Starts it, again if it was killed, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(&mut self, folder: &Path) -> Result<()> {
        let mut command = tools::own("serving")?;
        command.arg("group").envs(self.variables.iter().cloned());
        self.process = Some(Process::start(&self.name, folder, command)?);
        let what = format!("{} to be ready", self.name);
        wait::until(&what, READY_TIMEOUT, async || {
            let answer = http::get(self.address, "/ready").await;
            Ok(answer.is_ok_and(|(status, _)| status == 200))
        })
        .await
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take();
        process.context("the service does not run")?.kill()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end within 15 s, or with a failure.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the service does not run")?;
        let status = process.terminate(Duration::from_secs(15)).await?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The sum of a metric's samples.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = http::get(self.address, "/metrics").await?;
        Ok(http::metric(&text, name, ""))
    }
}
