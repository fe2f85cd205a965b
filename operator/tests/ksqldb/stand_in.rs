//! A server that answers as ksqlDB 7.9 does, as far as this project asks: the shapes, codes and words of its answers are
//! those of a real one. It keeps streams and queries, and runs none of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::pull_query::AssetsTable;

/// The server's memory, and the faults it is to show.
#[derive(Default)]
pub(crate) struct StandIn {
    sources: Mutex<BTreeMap<String, Source>>,
    /// Changing statements, in the order in which they came.
    pub(crate) changes: Mutex<Vec<String>>,
    sequence: AtomicUsize,
    /// Requests to be answered as a starting server does.
    pub(crate) starting: AtomicUsize,
    /// Changing statements to be carried out, but answered with an error.
    pub(crate) lost_answers: AtomicUsize,
    /// Changing statements to be answered before they are carried out.
    pub(crate) slow: AtomicUsize,
    /// What pull queries read.
    pub(crate) assets: Arc<AssetsTable>,
}

struct Source {
    kind: &'static str,
    topic: String,
    query: Option<Query>,
}

struct Query {
    id: String,
    statement: String,
    paused: bool,
}

fn counted(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

/// Starts one; returns its URL.
pub(crate) async fn start(server: Arc<StandIn>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pull_queries = server.assets.route();
    let app = Router::new()
        .route("/ksql", post(ksql))
        .route("/status/{kind}/{name}/{action}", get(status))
        .with_state(server)
        .merge(pull_queries);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

async fn ksql(State(server): State<Arc<StandIn>>, Json(body): Json<Value>) -> Response {
    if counted(&server.starting) {
        let error = json!({"@type": "generic_error", "error_code": 50302, "message": "KSQL is not yet ready to serve requests."});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response();
    }
    let mut entities = Vec::new();
    for statement in statements(body["ksql"].as_str().unwrap()) {
        match server.statement(&statement) {
            Ok(entity) => entities.push(entity),
            Err((status, error)) => return (status, Json(error)).into_response(),
        }
    }
    Json(entities).into_response()
}

async fn status(Path((_, name, _)): Path<(String, String, String)>) -> Response {
    if !name.starts_with('`') {
        return (
            StatusCode::NOT_FOUND,
            "<html><body><h1>Resource not found</h1></body></html>",
        )
            .into_response();
    }
    Json(json!({"status": "SUCCESS", "message": "Created query", "queryId": null})).into_response()
}

type Answer = Result<Value, (StatusCode, Value)>;

impl StandIn {
    fn statement(&self, words: &[String]) -> Answer {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match (word(0), word(1)) {
            ("LIST", "STREAMS") => {
                Ok(json!({"@type": "streams", "streams": self.list("STREAM"), "warnings": []}))
            }
            ("LIST", "TABLES") => {
                Ok(json!({"@type": "tables", "tables": self.list("TABLE"), "warnings": []}))
            }
            ("SHOW", "QUERIES") => {
                Ok(json!({"@type": "queries", "queries": self.queries(), "warnings": []}))
            }
            ("DESCRIBE", name) => self.describe(name),
            _ => self.change(words),
        }
    }

    fn list(&self, kind: &str) -> Vec<Value> {
        let sources = self.sources.lock();
        let listed = sources.iter().filter(|(_, source)| source.kind == kind);
        listed
            .map(|(name, source)| {
                json!({"type": kind, "name": name, "topic": source.topic, "keyFormat": "KAFKA", "valueFormat": "JSON", "isWindowed": false})
            })
            .collect()
    }

    fn queries(&self) -> Vec<Value> {
        let sources = self.sources.lock();
        let written = sources
            .iter()
            .filter_map(|(name, source)| Some((name, source, source.query.as_ref()?)));
        written
            .map(|(name, source, query)| {
                // A paused query says so in the count alone.
                let state = if query.paused { "PAUSED" } else { "RUNNING" };
                json!({
                    "queryString": query.statement, "sinks": [name], "sinkKafkaTopics": [source.topic], "id": query.id,
                    "statusCount": {state: 1}, "queryType": "PERSISTENT", "state": "RUNNING"
                })
            })
            .collect()
    }

    fn describe(&self, name: &str) -> Answer {
        let sources = self.sources.lock();
        let Some(source) = sources.get(&unquoted(name)) else {
            return Err(refused(&format!(
                "Could not find STREAM/TABLE '{name}' in the Metastore"
            )));
        };
        let offsets = json!([{"partition": 0, "logStartOffset": 0, "logEndOffset": 710, "consumerOffset": 417}]);
        let summaries = match source.query {
            None => json!([]),
            Some(ref query) => {
                let group = format!("_confluent-ksql-ofa_query_{}", query.id);
                json!([{"groupId": group, "topicSummaries": [{"kafkaTopic": "ofa_assets", "offsets": offsets}]}])
            }
        };
        Ok(json!({"@type": "sourceDescription", "sourceDescription": {
            "name": unquoted(name), "type": source.kind, "topic": source.topic, "queryOffsetSummaries": summaries,
        }, "warnings": []}))
    }

    fn change(&self, words: &[String]) -> Answer {
        let text = words.join(" ");
        self.changes.lock().push(text.clone());
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let command = match (word(0), word(1)) {
            ("CREATE", "STREAM") => self.create("STREAM", words)?,
            ("CREATE", "TABLE") => self.create("TABLE", words)?,
            ("DROP", "STREAM") => self.drop_stream(word(2))?,
            ("TERMINATE" | "PAUSE" | "RESUME", query) => self.control(word(0), &unquoted(query))?,
            _ => return Err(refused(&format!("line 1:1: Syntax Error at '{text}'"))),
        };
        if counted(&self.lost_answers) {
            let message = "Could not write the statement into the command topic.\nCaused by: Timeout while waiting for command topic consumer to process command\n\ttopic";
            let error = json!({"@type": "statement_error", "error_code": 50000, "message": message, "statementText": text, "entities": []});
            return Err((StatusCode::INTERNAL_SERVER_ERROR, error));
        }
        let slow = counted(&self.slow);
        let state = if slow { "EXECUTING" } else { "SUCCESS" };
        Ok(
            json!({"@type": "currentStatus", "statementText": text, "commandId": command,
            "commandStatus": {"status": state, "message": "", "queryId": null}, "commandSequenceNumber": 1, "warnings": []}),
        )
    }

    fn create(&self, kind: &'static str, words: &[String]) -> Result<String, (StatusCode, Value)> {
        let name = unquoted(&words[2]);
        let mut sources = self.sources.lock();
        if sources.contains_key(&name) {
            return Err(refused(&format!(
                "Could not determine output schema for query due to error: Cannot add stream '{name}': A stream with the same name already exists"
            )));
        }
        let topic = words.windows(3).find(|w| w[0] == "KAFKA_TOPIC").unwrap()[2].clone();
        let topic = topic.trim_matches('\'').to_owned();
        let select = words.iter().position(|word| word == "SELECT");
        let query = select.map(|select| {
            let number = self.sequence.fetch_add(1, Ordering::SeqCst);
            Query {
                id: format!("CSAS_{}_{number}", name.to_uppercase()),
                statement: canonical(kind, &name, &topic, words, select),
                paused: false,
            }
        });
        sources.insert(name.clone(), Source { kind, topic, query });
        Ok(format!("{}/`{name}`/create", kind.to_lowercase()))
    }

    fn drop_stream(&self, name: &str) -> Result<String, (StatusCode, Value)> {
        let name = unquoted(name);
        let mut sources = self.sources.lock();
        let reads = |query: &Query| query.statement.contains(&format!("FROM {name} "));
        let readers: Vec<&String> = sources
            .iter()
            .filter(|(_, source)| source.query.as_ref().is_some_and(reads))
            .map(|(name, _)| name)
            .collect();
        if !readers.is_empty() {
            return Err(refused(&format!(
                "Cannot drop {name}.\nThe following streams and/or tables read from this source: {readers:?}.\nYou need to drop them before dropping {name}."
            )));
        }
        match sources.remove(&name) {
            Some(_) => Ok(format!("stream/{name}/drop")),
            None => Err(refused(&format!("Stream {name} does not exist."))),
        }
    }

    fn control(&self, verb: &str, id: &str) -> Result<String, (StatusCode, Value)> {
        let mut sources = self.sources.lock();
        let found = sources
            .values_mut()
            .find(|source| source.query.as_ref().is_some_and(|query| query.id == id));
        let Some(source) = found else {
            return Err(refused(&format!("Unknown queryId: {id}")));
        };
        match verb {
            "TERMINATE" => source.query = None,
            verb => {
                if let Some(query) = &mut source.query {
                    query.paused = verb == "PAUSE";
                }
            }
        }
        Ok(format!("{}/{id}/execute", verb.to_lowercase()))
    }
}

fn refused(message: &str) -> (StatusCode, Value) {
    let error = json!({"@type": "statement_error", "error_code": 40001, "message": message, "statementText": "", "entities": []});
    (StatusCode::BAD_REQUEST, error)
}

/// The statement as ksqlDB writes it anew.
fn canonical(kind: &str, name: &str, topic: &str, words: &[String], select: usize) -> String {
    let mut query = String::new();
    for word in &words[select..] {
        match word.as_str() {
            "AS" => continue,
            "JOIN" => query.push_str("\nINNER JOIN"),
            "FROM" | "WHERE" => query.push_str(&format!("\n{word}")),
            "." | "[" | "]" | "," => query.push_str(word),
            word => {
                if !query.ends_with(['.', '[', '\n']) {
                    query.push(' ');
                }
                query.push_str(&if word.starts_with('`') {
                    unquoted(word)
                } else {
                    word.to_owned()
                });
            }
        }
    }
    let name = if name.contains('-') {
        format!("`{name}`")
    } else {
        name.to_owned()
    };
    format!(
        "CREATE {kind} {name} WITH (CLEANUP_POLICY='delete', KAFKA_TOPIC='{topic}', PARTITIONS=3, REPLICAS=1, RETENTION_MS=604800000, VALUE_FORMAT='JSON') AS{query}\nEMIT CHANGES;"
    )
}

fn unquoted(name: &str) -> String {
    name.strip_prefix('`')
        .and_then(|name| name.strip_suffix('`'))
        .map_or_else(|| name.to_uppercase(), |name| name.replace("``", "`"))
}

/// The words of each statement: names in upper case, quoted ones and text as they stand.
fn statements(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        let mut word = first.to_string();
        match first {
            ';' => {
                all.push(Vec::new());
                continue;
            }
            c if c.is_whitespace() => continue,
            '\'' | '`' => loop {
                let next = chars.next().expect("quotes are closed");
                word.push(next);
                if next == first {
                    if chars.peek() != Some(&first) {
                        break;
                    }
                    word.push(chars.next().unwrap());
                }
            },
            c if c.is_alphanumeric() || c == '_' => {
                while let Some(next) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(next);
                }
                word = word.to_uppercase();
            }
            _ => {}
        }
        if let Some(statement) = all.last_mut() {
            statement.push(word);
        }
    }
    all.retain(|statement| !statement.is_empty());
    all
}
