//! The task of one server: look, plan, take one step, look again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Wanted;
use super::client::{KsqlClient, KsqlError};
use super::observe::{Observed, QueryProgress, observe, progress};
use super::plan::{Action, InPlace, plan};
use super::servers::{Claim, Report, Server, StreamState};
use super::sql::{Identifier, create_stream, drop_stream, resume};

/// A query may die at any time and nothing tells of it, so that the server is asked this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often a server that is away is asked.
const RETRY: Duration = Duration::from_secs(3);

/// A step that came to nothing is not tried again before this.
const STEP_RETRY: Duration = Duration::from_secs(30);

/// How old the word on a query's progress may be: it costs the server a question to Kafka for each stream.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// See [`super::servers::KsqlServers`].
pub(super) struct Task {
    client: KsqlClient,
    server: Arc<Server>,
    budget: usize,
    news: watch::Sender<u64>,
    problems: BTreeMap<Identifier, (Instant, String)>,
    progress: BTreeMap<Identifier, (Instant, QueryProgress)>,
}

/// The next thing to do.
enum Step<'a> {
    Create(&'a Wanted),
    Recreate(&'a Wanted, &'a str),
    Resume(&'a Identifier, &'a str),
    Drop(&'a Identifier),
}

impl Step<'_> {
    fn stream(&self) -> &Identifier {
        match self {
            Self::Create(wanted) | Self::Recreate(wanted, _) => &wanted.name,
            Self::Resume(name, _) | Self::Drop(name) => name,
        }
    }
}

impl Task {
    pub(super) fn new(
        client: KsqlClient,
        server: Arc<Server>,
        budget: usize,
        news: watch::Sender<u64>,
    ) -> Self {
        Self {
            client,
            server,
            budget,
            news,
            problems: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }

    /// Works for as long as the process lives.
    pub(super) async fn run(mut self) {
        loop {
            let claims = self.server.claims.lock().clone();
            let (report, stepped) = self.pass(&claims).await;
            let pause = match &report.problem {
                Some(_) => RETRY,
                None if stepped => continue,
                None => LOOK_EVERY,
            };
            self.tell(report);
            tokio::select! {
                () = self.server.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks, plans and takes at most one step; returns whether one was taken, so that all is to be looked at again.
    async fn pass(&mut self, claims: &BTreeMap<String, Claim>) -> (Report, bool) {
        let mut report = Report {
            claims: claims.clone(),
            ..Report::default()
        };
        let observed = match observe(&self.client).await {
            Ok(observed) => observed,
            Err(problem) => {
                report.problem = Some(problem);
                return (report, false);
            }
        };
        let plans = plans(claims, &observed, self.budget);
        let due = |step: &Step<'_>| {
            let failed = self.problems.get(step.stream());
            failed.is_none_or(|(at, _)| at.elapsed() >= STEP_RETRY)
        };
        if let Some(step) = next_step(claims, &plans).find(due) {
            let name = step.stream().clone();
            match self.take(&step).await {
                Ok(()) => {
                    self.problems.remove(&name);
                }
                Err(error) => {
                    warn!(stream = name.as_str(), %error, "a step for a derived stream came to nothing");
                    self.problems
                        .insert(name, (Instant::now(), error.to_string()));
                }
            }
            return (report, true);
        }
        for ((owner, name), action) in plans {
            let settled = action == Some(Action::Nothing);
            if settled {
                self.problems.remove(&name);
            }
            let state = StreamState {
                progress: if settled {
                    self.progress(&name).await
                } else {
                    None
                },
                problem: self.problems.get(&name).map(|(_, why)| why.clone()),
                action,
            };
            report.streams.insert((owner, name), state);
        }
        (report, false)
    }

    async fn take(&self, step: &Step<'_>) -> Result<(), KsqlError> {
        match step {
            Step::Create(wanted) => self.create(wanted).await,
            Step::Recreate(wanted, why) => {
                info!(
                    stream = wanted.name.as_str(),
                    why, "a derived stream is made again"
                );
                let dropped = drop_stream(&wanted.name);
                self.client.execute(&dropped, &json!({})).await?;
                self.create(wanted).await
            }
            Step::Resume(_, query) => self.client.execute(&resume(query), &json!({})).await,
            Step::Drop(name) => {
                info!(
                    stream = name.as_str(),
                    "a derived stream is dropped; its topic is left to Kafka's own tools"
                );
                self.client.execute(&drop_stream(name), &json!({})).await
            }
        }
    }

    async fn create(&self, wanted: &Wanted) -> Result<(), KsqlError> {
        info!(
            stream = wanted.name.as_str(),
            topic = wanted.topic,
            "a derived stream is made"
        );
        // From the first event on: with `latest`, those before would be missing, and the joined table would be empty.
        let properties = json!({ "auto.offset.reset": "earliest" });
        self.client
            .execute(&create_stream(wanted), &properties)
            .await
    }

    /// As it was a short time ago; one that cannot be told is not.
    async fn progress(&mut self, name: &Identifier) -> Option<QueryProgress> {
        if let Some((at, progress)) = self.progress.get(name)
            && at.elapsed() < PROGRESS_EVERY
        {
            return Some(progress.clone());
        }
        let progress = progress(&self.client, name).await.ok()?;
        let known = (Instant::now(), progress.clone());
        self.progress.insert(name.clone(), known);
        Some(progress)
    }

    fn tell(&self, report: Report) {
        let mut known = self.server.report.lock();
        if *known != report {
            *known = report;
            self.news.send_modify(|count| *count += 1);
        }
    }
}

type Plans = BTreeMap<(String, Identifier), Option<Action>>;

/// What is to be done for every claim. A stream that two resources want is the first one's.
fn plans(claims: &BTreeMap<String, Claim>, observed: &Observed, budget: usize) -> Plans {
    let mut plans = Plans::new();
    let mut taken: BTreeMap<&Identifier, &String> = BTreeMap::new();
    for (owner, claim) in claims {
        for wanted in &claim.wanted {
            let first = taken.entry(&wanted.name).or_insert(owner);
            let action = if *first == owner {
                plan(wanted, observed, budget)
            } else {
                let why = format!(
                    "AssetGroup {first} has stream {} already; keep one of the two, or set spec.stream.name",
                    wanted.name.as_str()
                );
                Action::Refused { why }
            };
            plans.insert((owner.clone(), wanted.name.clone()), Some(action));
        }
    }
    for (owner, claim) in claims {
        let left = claim.unwanted.iter();
        for name in left.filter(|name| observed.streams.contains_key(name)) {
            if !taken.contains_key(name) {
                plans.insert((owner.clone(), name.clone()), None);
            }
        }
    }
    plans
}

/// The steps that may be taken, in order: first what makes room.
fn next_step<'a>(
    claims: &'a BTreeMap<String, Claim>,
    plans: &'a Plans,
) -> impl Iterator<Item = Step<'a>> {
    let drops = plans.iter().filter(|(_, action)| action.is_none());
    let drops = drops.map(|((_, name), _)| Step::Drop(name));
    let others = claims.iter().flat_map(move |(owner, claim)| {
        claim.wanted.iter().filter_map(move |wanted| {
            let action = plans.get(&(owner.clone(), wanted.name.clone()))?.as_ref()?;
            match action {
                Action::InPlace(InPlace::Create) => Some(Step::Create(wanted)),
                Action::InPlace(InPlace::Resume { query }) => {
                    Some(Step::Resume(&wanted.name, query))
                }
                Action::Recreate { why } if claim.approved.get(&wanted.name) == Some(why) => {
                    Some(Step::Recreate(wanted, why))
                }
                _ => None,
            }
        })
    });
    drops.chain(others)
}
