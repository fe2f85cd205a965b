//! The ksqlDB servers that resources name, each with a task of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Wanted;
use super::client::{KsqlClient, KsqlError};
use super::observe::QueryProgress;
use super::plan::Action;
use super::sql::Identifier;
use super::task::Task;

/// What one resource asks of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Streams to be there.
    pub wanted: Vec<Wanted>,
    /// Streams to be dropped.
    pub unwanted: Vec<Identifier>,
    /// Streams that may be made again, each for this reason: it was shown for long enough.
    pub approved: BTreeMap<Identifier, String>,
}

/// How a stream was when the server was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// What is to be done for it; `None` for one that is unwanted and still there.
    pub action: Option<Action>,
    /// Why the last step came to nothing.
    pub problem: Option<String>,
    /// How far its query is.
    pub progress: Option<QueryProgress>,
}

/// What is known of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The claims it answers.
    pub(super) claims: BTreeMap<String, Claim>,
    /// By resource and stream. An unwanted stream that is gone is not among them.
    pub(super) streams: BTreeMap<(String, Identifier), StreamState>,
    /// Why the server could not be asked.
    pub(super) problem: Option<KsqlError>,
}

/// A server as its task and the controllers share it.
pub(super) struct Server {
    pub(super) claims: Mutex<BTreeMap<String, Claim>>,
    pub(super) changed: Notify,
    pub(super) report: Mutex<Report>,
}

/// All servers. Questions are answered at once by what is known; work goes on in the background, so that a server
/// that is away or slow holds up nobody.
pub struct KsqlServers {
    servers: Mutex<BTreeMap<String, Arc<Server>>>,
    /// Persistent queries that a server may run.
    budget: usize,
    news: watch::Sender<u64>,
}

impl KsqlServers {
    /// No servers yet; each may run `budget` persistent queries.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            servers: Mutex::default(),
            budget,
            news: watch::Sender::new(0),
        }
    }

    /// A number that changes whenever a server has something new to tell.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Puts what a resource asks for in place of what it asked before. Returns how its streams are, once the server was
    /// asked with this very claim in mind.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub fn claim(
        &self,
        url: &str,
        owner: &str,
        claim: &Claim,
    ) -> Result<Option<BTreeMap<Identifier, StreamState>>, KsqlError> {
        let server = self.server(url)?;
        let changed = {
            let mut claims = server.claims.lock();
            let old = claims.insert(owner.to_owned(), claim.clone());
            old.as_ref() != Some(claim)
        };
        if changed {
            server.changed.notify_one();
        }
        let report = server.report.lock();
        if let Some(problem) = &report.problem {
            return Err(problem.clone());
        }
        if report.claims.get(owner) != Some(claim) {
            return Ok(None);
        }
        let streams = report.streams.iter();
        let own = streams.filter(|((of, _), _)| of == owner);
        Ok(Some(
            own.map(|((_, name), state)| (name.clone(), state.clone()))
                .collect(),
        ))
    }

    /// Forgets a resource. Its streams stay as they are.
    pub fn release(&self, owner: &str) {
        for server in self.servers.lock().values() {
            if server.claims.lock().remove(owner).is_some() {
                server.changed.notify_one();
            }
        }
    }

    /// Forgets all resources: another operator has them now.
    pub fn release_all(&self) {
        for server in self.servers.lock().values() {
            server.claims.lock().clear();
            server.changed.notify_one();
        }
    }

    fn server(&self, url: &str) -> Result<Arc<Server>, KsqlError> {
        let mut servers = self.servers.lock();
        if let Some(server) = servers.get(url) {
            return Ok(Arc::clone(server));
        }
        let client = KsqlClient::new(url)?;
        let server = Arc::new(Server {
            claims: Mutex::default(),
            changed: Notify::new(),
            report: Mutex::default(),
        });
        let task = Task::new(client, Arc::clone(&server), self.budget, self.news.clone());
        tokio::spawn(task.run());
        servers.insert(url.to_owned(), Arc::clone(&server));
        Ok(server)
    }
}
