//! Looks at tasks: notices changes, and asks those whose state the engine cannot know.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{Task, TaskState};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::engine::Engine;
use super::health;
use super::labels::{self, INSTALLATION};
use super::state::{Answer, task_labels};
use crate::platform::PlatformError;
use crate::platform::probe::{Prober, Target};

/// How often tasks are looked at. A manager answers from memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A task that is asked.
struct Asked {
    prober: Prober,
    /// Why it was given up last. It is asked on: the operator may have been cut off, and nothing that may serve is
    /// restarted for that.
    failure: Option<String>,
}

/// Asks the tasks of an installation, and tells when anything about them changes.
pub(super) struct Looker {
    engine: Engine,
    http: reqwest::Client,
    wake: Arc<Notify>,
    asked: Mutex<BTreeMap<String, Asked>>,
    changes: watch::Sender<u64>,
}

impl Looker {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            http: reqwest::Client::new(),
            wake: Arc::new(Notify::new()),
            asked: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What the tasks that are asked have answered.
    pub(super) fn answers(&self) -> BTreeMap<String, Answer> {
        let asked = self.asked.lock();
        let answer = |asked: &Asked| {
            let ready = asked.prober.is_ready();
            Answer {
                ready,
                failure: asked.failure.clone().filter(|_| !ready),
            }
        };
        asked
            .iter()
            .map(|(id, asked)| (id.clone(), answer(asked)))
            .collect()
    }

    pub(super) async fn run(self: Arc<Self>) {
        let mut before = None;
        let mut reachable = true;
        loop {
            match self.look().await {
                Ok(seen) => {
                    reachable = true;
                    if before.as_ref() != Some(&seen) {
                        before = Some(seen);
                        self.changes.send_modify(|count| *count += 1);
                    }
                }
                Err(error) => {
                    if reachable {
                        warn!(%error, "the Swarm cannot be looked at; trying again");
                    }
                    reachable = false;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// What is to be seen, in a form that changes whenever it does.
    async fn look(&self) -> Result<Vec<(String, u64, Option<Answer>)>, PlatformError> {
        let tasks = self.engine.tasks().await?;
        let mine: Vec<Task> = tasks
            .into_iter()
            .filter(|task| task_labels(task).get(INSTALLATION) == Some(&self.engine.installation))
            .collect();
        self.ask(&mine);
        let mut answers = self.answers();
        let seen = mine.into_iter().map(|task| {
            let id = task.id.unwrap_or_default();
            let version = task.version.and_then(|version| version.index);
            let answer = answers.remove(&id);
            (id, version.unwrap_or(0), answer)
        });
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(seen)
    }

    /// Begins to ask what runs now, and ends to ask what does not run any more.
    fn ask(&self, tasks: &[Task]) {
        let mut asked = self.asked.lock();
        let mut before = std::mem::take(&mut *asked);
        for task in tasks.iter().filter(|task| is_running(task)) {
            let Some(id) = task.id.clone() else { continue };
            let (going_on, failure) = match before.remove(&id) {
                Some(Asked { prober, failure }) => match prober.failure() {
                    None => (Some(prober), failure),
                    given_up => (None, given_up),
                },
                None => (None, None),
            };
            let prober = going_on.or_else(|| self.prober(task, &id));
            asked.extend(prober.map(|prober| (id, Asked { prober, failure })));
        }
    }

    fn prober(&self, task: &Task, id: &str) -> Option<Prober> {
        let labels = task_labels(task);
        let probes = health::asked_from_outside(&health::of_labels(&labels))?;
        let workload = labels::workload_of(&labels)?;
        let service = labels::number(&labels, labels::ORDINAL).map_or_else(
            || workload.name.clone(),
            |ordinal| workload.instance(ordinal),
        );
        let target = Target {
            host: format!("{service}.{}.{id}", task.slot.unwrap_or(1)),
            env: BTreeMap::new(),
            directory: PathBuf::new(),
            age: Duration::ZERO,
        };
        Some(Prober::start(
            &probes,
            target,
            false,
            self.http.clone(),
            self.wake.clone(),
        ))
    }
}

fn is_running(task: &Task) -> bool {
    let state = task.status.as_ref().and_then(|status| status.state);
    state == Some(TaskState::RUNNING) && task.desired_state == Some(TaskState::RUNNING)
}
