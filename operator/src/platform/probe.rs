//! Asks instances for their state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::local::programs;
use super::{Check, Probe, Probes};

/// Where and how an instance is asked.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its name or address.
    pub(super) host: String,
    /// Environment of commands that are run to ask it.
    pub(super) env: BTreeMap<String, String>,
    /// Their directory.
    pub(super) directory: PathBuf,
    /// How long the instance runs already.
    pub(super) age: Duration,
}

/// What the answers say.
#[derive(Debug, Default)]
pub(super) struct Health {
    ready: AtomicBool,
    failed: Mutex<Option<String>>,
}

/// Asks one instance until dropped.
#[derive(Debug)]
pub(super) struct Prober {
    health: Arc<Health>,
    task: JoinHandle<()>,
}

impl Prober {
    pub(super) fn start(
        probes: &Probes,
        target: Target,
        was_ready: bool,
        http: reqwest::Client,
        wake: Arc<Notify>,
    ) -> Self {
        let health = Arc::new(Health::default());
        health.ready.store(was_ready, Ordering::Relaxed);
        let asker = Asker {
            target,
            http,
            wake,
            health: health.clone(),
        };
        let probes = probes.clone();
        let task = tokio::spawn(async move { asker.run(probes).await });
        Self { health, task }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.health.ready.load(Ordering::Relaxed)
    }

    /// Why the instance must be restarted, if it must.
    pub(super) fn failure(&self) -> Option<String> {
        self.health.failed.lock().clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Asker {
    target: Target,
    http: reqwest::Client,
    wake: Arc<Notify>,
    health: Arc<Health>,
}

impl Asker {
    async fn run(self, probes: Probes) {
        let Probes {
            startup,
            readiness,
            liveness,
        } = probes;
        if let Some(probe) = startup
            && let Err(why) = self.until_good(&probe).await
        {
            return self.fail("startup", &why);
        }
        tokio::join!(
            self.follow_readiness(readiness),
            self.follow_liveness(liveness)
        );
    }

    async fn until_good(&self, probe: &Probe) -> Result<(), String> {
        self.initial_delay(probe).await;
        let mut failures = 0;
        loop {
            match self.ask(probe).await {
                Ok(()) => return Ok(()),
                Err(why) if failures + 1 >= probe.failure_threshold => return Err(why),
                Err(_) => failures += 1,
            }
            sleep(period(probe)).await;
        }
    }

    async fn follow_readiness(&self, probe: Option<Probe>) {
        let Some(probe) = probe else {
            return self.set_ready(true);
        };
        self.initial_delay(&probe).await;
        let mut failures = 0;
        loop {
            match self.ask(&probe).await {
                Ok(()) => {
                    failures = 0;
                    self.set_ready(true);
                }
                Err(_) => {
                    failures += 1;
                    if failures >= probe.failure_threshold {
                        self.set_ready(false);
                    }
                }
            }
            // An instance that just started is asked more often: others wait for it.
            let ready = self.health.ready.load(Ordering::Relaxed);
            sleep(if ready {
                period(&probe)
            } else {
                period(&probe).min(EAGER)
            })
            .await;
        }
    }

    async fn follow_liveness(&self, probe: Option<Probe>) {
        let Some(probe) = probe else { return };
        self.initial_delay(&probe).await;
        let mut failures = 0;
        loop {
            match self.ask(&probe).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= probe.failure_threshold {
                        return self.fail("liveness", &why);
                    }
                }
            }
            sleep(period(&probe)).await;
        }
    }

    async fn initial_delay(&self, probe: &Probe) {
        sleep(Duration::from_secs(probe.initial_delay.into()).saturating_sub(self.target.age))
            .await;
    }

    async fn ask(&self, probe: &Probe) -> Result<(), String> {
        let seconds = probe.timeout.max(1);
        let asked = timeout(
            Duration::from_secs(seconds.into()),
            self.check(&probe.check),
        );
        asked
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))
    }

    async fn check(&self, check: &Check) -> Result<(), String> {
        let host = self.target.host.as_str();
        match check {
            Check::Tcp { port } => match TcpStream::connect((host, *port)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{host}:{port}: {error}")),
            },
            Check::Http { port, path } => {
                let url = format!("http://{host}:{port}/{}", path.trim_start_matches('/'));
                let response = self
                    .http
                    .get(&url)
                    .send()
                    .await
                    .map_err(|error| error.to_string())?;
                let status = response.status();
                if status.is_success() || status.is_redirection() {
                    Ok(())
                } else {
                    Err(format!("{url} answers {status}"))
                }
            }
            Check::Exec { command } => self.execute(command).await,
        }
    }

    async fn execute(&self, command: &[String]) -> Result<(), String> {
        let Some((program, args)) = command.split_first() else {
            return Err("the probe has no command".to_owned());
        };
        let file = programs::find(program).ok_or_else(|| format!("{program} is missing"))?;
        let status = Command::new(file)
            .args(args)
            .env_clear()
            .env("PATH", programs::search_path())
            .envs(&self.target.env)
            .current_dir(&self.target.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{program} ends with {status}"))
        }
    }

    fn set_ready(&self, ready: bool) {
        if self.health.ready.swap(ready, Ordering::Relaxed) != ready {
            self.wake.notify_one();
        }
    }

    fn fail(&self, which: &str, why: &str) {
        *self.health.failed.lock() = Some(format!("its {which} probe fails: {why}"));
        self.wake.notify_one();
    }
}

/// Pause between questions to an instance that is not ready yet.
const EAGER: Duration = Duration::from_millis(250);

fn period(probe: &Probe) -> Duration {
    Duration::from_secs(probe.period.max(1).into())
}
