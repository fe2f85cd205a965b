//! The stage of a scenario: a topic and a consumer group of its own on a broker that all scenarios of the test
//! program share, and whatever it puts up beside.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::FutureExt as _;
use ofa_client::Event;
use ofa_client::audit::Expected;
use tokio::sync::{Mutex, OnceCell};

use crate::forwarder::{Forwarder, Settings};
use crate::kafka::{Broker, Positions};
use crate::load::{Load, Pace};
use crate::nats::Shard;
use crate::process::{self, Process};
use crate::report;
use crate::report::Verdict;
use crate::watch::Recorder;

/// Partitions of a scenario's topic: several for each forwarder.
pub const PARTITIONS: i32 = 6;

/// A scenario takes half a minute; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(150);

/// How long it may take until everything written is confirmed and committed, catching up included.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(40);

/// Recorders that have received nothing for this long have received everything that was on its way.
const QUIET: Duration = Duration::from_millis(400);

/// What is missing is waited for, since a machine that does much else may deliver nothing for longer than that.
const LATE: Duration = Duration::from_secs(5);

/// Lines of each log that are shown when a scenario fails.
const SHOWN_LINES: usize = 25;

/// What a scenario works with.
#[derive(Debug)]
pub struct Scene {
    name: String,
    folder: PathBuf,
    broker: Arc<Broker>,
    topic: String,
    group: String,
}

/// Runs a scenario with a broker that the scenarios of this test program share, one at a time: each has the machine
/// for itself. If it fails, logs, metrics and positions are shown.
pub async fn scenario(name: &str, body: impl AsyncFnOnce(&Scene) -> Result<()>) {
    static TURN: Mutex<()> = Mutex::const_new(());
    static BROKER: OnceCell<Arc<Broker>> = OnceCell::const_new();
    let _turn = TURN.lock().await;
    let broker = BROKER.get_or_try_init(async || {
        Ok::<_, anyhow::Error>(Arc::new(Broker::start(&folder("kafka")?).await?))
    });
    let broker = match broker.await {
        Ok(broker) => broker.clone(),
        Err(error) => fail(name, &error),
    };
    perform(name, broker, LIMIT, body).await;
}

/// Runs a scenario with a broker of its own, which `body` may ruin: it is given the broker's folder.
pub async fn scenario_with_own_broker(
    name: &str,
    body: impl AsyncFnOnce(&Scene, Broker) -> Result<()>,
) {
    scenario_with_own_broker_within(name, LIMIT, body).await;
}

/// The same for a scenario that may take longer than usual.
pub async fn scenario_with_own_broker_within(
    name: &str,
    limit: Duration,
    body: impl AsyncFnOnce(&Scene, Broker) -> Result<()>,
) {
    let started = async { Broker::start(&folder(&format!("{name}-kafka"))?).await };
    let broker = match started.await {
        Ok(broker) => broker,
        Err(error) => fail(name, &error),
    };
    let shown = Arc::new(broker.twin());
    let body = async |scene: &Scene| body(scene, broker).await;
    perform(name, shown, limit, body).await;
}

async fn perform(
    name: &str,
    broker: Arc<Broker>,
    limit: Duration,
    body: impl AsyncFnOnce(&Scene) -> Result<()>,
) {
    let began = Instant::now();
    let scene = match Scene::new(name, broker).await {
        Ok(scene) => scene,
        Err(error) => fail(name, &error),
    };
    let body = AssertUnwindSafe(body(&scene)).catch_unwind();
    let outcome = match tokio::time::timeout(limit, body).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(anyhow!("it panicked, see above")),
        Err(_) => Err(anyhow!("it hangs: not done after {} s", limit.as_secs())),
    };
    match outcome {
        Ok(()) => say(&format!(
            "scenario {name}: passed in {:.1} s",
            began.elapsed().as_secs_f64()
        )),
        Err(error) => {
            scene.dump();
            fail(name, &error);
        }
    }
}

/// The one place that fails a test.
#[allow(clippy::panic)]
fn fail(name: &str, error: &anyhow::Error) -> ! {
    panic!("scenario {name}: {error:#}")
}

/// Shown by the test runner when the test fails, or with `--nocapture`.
#[allow(clippy::print_stderr)]
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// A folder that is removed when this process has ended.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("ofa-e2e-{name}-"))
        .tempdir()
        .context("no temporary folder")?
        .keep();
    process::remove_at_end(&folder)?;
    Ok(folder)
}

impl Scene {
    async fn new(name: &str, broker: Arc<Broker>) -> Result<Self> {
        let scene = Self {
            name: name.to_owned(),
            folder: folder(name)?,
            broker,
            topic: name.to_owned(),
            group: format!("{name}-forwarders"),
        };
        scene.broker.create_topic(&scene.topic, PARTITIONS).await?;
        Ok(scene)
    }

    /// For files and logs of this scenario.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The topic that forwarders read.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The forwarders' group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Starts shards of `nodes` nodes each, called C1, C2, ...
    ///
    /// # Errors
    /// When a node cannot be started.
    pub async fn shards(&self, count: usize, nodes: usize) -> Result<Vec<Shard>> {
        let mut shards = Vec::with_capacity(count);
        for number in 1..=count {
            shards.push(Shard::start(&format!("C{number}"), nodes, &self.folder).await?);
        }
        Ok(shards)
    }

    /// What a forwarder of this scenario is started with.
    #[must_use]
    pub fn settings(&self, member: &str, shards: &[Shard]) -> Settings {
        Settings {
            member: member.to_owned(),
            broker: self.broker.address(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            shards: Settings::urls_of(shards),
            variables: Vec::new(),
        }
    }

    /// Starts a forwarder; it is not waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, settings: Settings) -> Result<Forwarder> {
        Forwarder::start(settings, &self.folder)
    }

    /// Starts a forwarder and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn forwarder(&self, member: &str, shards: &[Shard]) -> Result<Forwarder> {
        let mut forwarder = self.start(self.settings(member, shards))?;
        forwarder.wait_ready().await?;
        Ok(forwarder)
    }

    /// Starts a program; its log is shown when the scenario fails.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn process(&self, name: &str, command: std::process::Command) -> Result<Process> {
        Process::start(name, &self.folder, command)
    }

    /// Begins to write events.
    ///
    /// # Errors
    /// When the producer cannot be made.
    pub fn load(&self, pace: Pace) -> Result<Load> {
        Load::start(&self.broker, &self.topic, pace)
    }

    /// Stops the load, waits until forwarders have committed everything that was written, and returns what must have
    /// been received.
    ///
    /// # Errors
    /// When something is not confirmed within 40 s.
    pub async fn settle(&self, load: Load) -> Result<Expected> {
        load.stop()?;
        self.everything_committed().await
    }

    /// Waits until forwarders have committed everything in the topic, and returns what must have been received.
    ///
    /// # Errors
    /// When something is not confirmed within 40 s.
    pub async fn everything_committed(&self) -> Result<Expected> {
        let committed = self
            .broker
            .everything_committed(&self.group, &self.topic, SETTLE_TIMEOUT);
        self.broker.expected(&self.topic, &committed.await?)
    }

    /// What the forwarders have committed.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(&self) -> Result<Positions> {
        self.broker.committed(&self.group, &self.topic)
    }

    /// Compares what is expected with what recorders, one a shard, have received when nothing comes any more.
    pub async fn verdict(&self, expected: &Expected, recorders: &[&Recorder]) -> Verdict {
        let asked = Instant::now();
        loop {
            let verdict = report::of_records(expected, &self.records(recorders).await);
            if verdict.after.lost == 0 || asked.elapsed() >= LATE {
                say(&format!("scenario {}: {verdict}", self.name));
                return verdict;
            }
        }
    }

    /// What recorders have received when nothing comes any more.
    pub async fn records(&self, recorders: &[&Recorder]) -> Vec<Vec<Event>> {
        let count = || {
            recorders
                .iter()
                .map(|recorder| recorder.count())
                .sum::<usize>()
        };
        loop {
            let before = count();
            tokio::time::sleep(QUIET).await;
            if count() == before {
                break;
            }
        }
        recorders
            .iter()
            .map(|recorder| recorder.received())
            .collect()
    }

    fn dump(&self) {
        say(&format!("---- scenario {}: what is known ----", self.name));
        match (self.broker.ends(&self.topic), self.committed()) {
            (Ok(ends), Ok(committed)) => say(&format!("ends {ends:?}, committed {committed:?}")),
            (ends, committed) => say(&format!("ends {ends:?}, committed {committed:?}")),
        }
        for path in files(&self.folder) {
            say(&format!(
                "---- {} ----\n{}",
                path.display(),
                process::tail(&path, SHOWN_LINES)
            ));
        }
        if let Some(process) = self.broker.process() {
            say(&format!("---- Kafka ----\n{}", process.tail(SHOWN_LINES)));
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let told = |path: &PathBuf| {
        path.extension()
            .is_some_and(|it| it == "log" || it == "metrics")
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(told).collect();
    paths.sort();
    paths
}
