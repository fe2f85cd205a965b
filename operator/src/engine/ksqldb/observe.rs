//! What a server has.

use std::collections::BTreeMap;

use super::answers::{Entity, Query};
use super::canonical;
use super::client::{KsqlClient, KsqlError};
use super::sql::{Identifier, describe};

/// Everything of a server that planning looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Streams and their topics.
    pub streams: BTreeMap<Identifier, String>,
    /// Tables and their topics.
    pub tables: BTreeMap<Identifier, String>,
    /// Persistent queries.
    pub queries: Vec<RunningQuery>,
}

/// A persistent query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningQuery {
    /// Its id.
    pub id: String,
    /// What it writes.
    pub sink: Identifier,
    /// The topic behind that.
    pub topic: String,
    /// Its statement as the server tells it.
    pub statement: String,
    /// How it is.
    pub health: Health,
}

/// How a query is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It runs.
    Running,
    /// Somebody has paused it.
    Paused,
    /// It is in error, or its server does not answer for it.
    Failed(String),
}

impl RunningQuery {
    /// Whether it reads from `stream`.
    #[must_use]
    pub fn reads(&self, stream: &Identifier) -> bool {
        self.sink != *stream && canonical::mentions(&self.statement, stream.as_str())
    }
}

/// Asks for everything.
pub(super) async fn observe(client: &KsqlClient) -> Result<Observed, KsqlError> {
    let mut observed = Observed::default();
    for entity in client
        .ask("LIST STREAMS; LIST TABLES; SHOW QUERIES;")
        .await?
    {
        match entity {
            Entity::Streams { streams } => {
                let named = streams.into_iter();
                observed.streams = named
                    .map(|source| (Identifier::kept(&source.name), source.topic))
                    .collect();
            }
            Entity::Tables { tables } => {
                let named = tables.into_iter();
                observed.tables = named
                    .map(|source| (Identifier::kept(&source.name), source.topic))
                    .collect();
            }
            Entity::Queries { queries } => {
                observed.queries = queries.into_iter().filter_map(running).collect();
            }
            _ => {}
        }
    }
    Ok(observed)
}

/// How far a stream's query is.
pub(super) async fn progress(
    client: &KsqlClient,
    stream: &Identifier,
) -> Result<QueryProgress, KsqlError> {
    let answer = client.ask(&describe(stream)).await?;
    let described = answer.into_iter().find_map(|entity| match entity {
        Entity::SourceDescription { source_description } => Some(source_description),
        _ => None,
    });
    Ok(
        described.map_or(QueryProgress::default(), |description| QueryProgress {
            lag: description.lag(),
            consumer_group: description.consumer_group().map(str::to_owned),
        }),
    )
}

/// How far a stream's query is, by its server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryProgress {
    /// Records that it has not read yet.
    pub lag: u64,
    /// The consumer group whose positions in Kafka tell it.
    pub consumer_group: Option<String>,
}

fn running(query: Query) -> Option<RunningQuery> {
    if query.query_type != "PERSISTENT" {
        return None;
    }
    let count = |state: &str| query.status_count.get(state).copied().unwrap_or(0);
    let failed = ["ERROR", "UNRESPONSIVE"]
        .into_iter()
        .find(|state| query.state == *state || count(state) > 0);
    let health = match failed {
        Some(state) => Health::Failed(state.to_owned()),
        None if query.state == "PAUSED" || count("PAUSED") > 0 => Health::Paused,
        None => Health::Running,
    };
    Some(RunningQuery {
        sink: Identifier::kept(query.sinks.first()?),
        topic: query
            .sink_kafka_topics
            .into_iter()
            .next()
            .unwrap_or_default(),
        id: query.id,
        statement: query.query_string,
        health,
    })
}
