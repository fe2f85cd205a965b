//! ksqlDB over REST: one statement, one answer.

use std::time::Duration;

use reqwest::{Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::answers::{CommandStatus, CurrentStatus, Entity, ErrorAnswer};

/// ksqlDB answers a changing statement when it is carried out or after some seconds; with Kafka away it took minutes, and
/// carried out later what had been given up. So a time-out says nothing, and is not to be short.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is there accepts at once.
const CONNECT: Duration = Duration::from_secs(3);

/// How often a command that is being carried out is asked for.
const POLL: Duration = Duration::from_millis(500);

/// How much of an error is told: ksqlDB's may have fifty kilobytes.
const MAX_MESSAGE: usize = 300;

/// The code of a server that is starting.
const STARTING: u32 = 50302;

/// Why a statement came to nothing, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KsqlError {
    /// No URL of a server.
    #[error("'{0}' is no URL of a ksqlDB server; write http://<host>:8088")]
    Url(String),
    /// Nobody answers.
    #[error("ksqlDB at {url} cannot be reached ({why}); start it, or correct the URL")]
    Unreachable {
        /// The server.
        url: String,
        /// Why.
        why: String,
    },
    /// It is starting, or its Kafka is away, or it is busy with another statement. What was asked for may have been
    /// done or may yet be.
    #[error("ksqlDB at {url} cannot do it at the moment: {why}")]
    Busy {
        /// The server.
        url: String,
        /// Why.
        why: String,
    },
    /// It does not take the statement.
    #[error("ksqlDB refuses: {0}")]
    Refused(String),
    /// It answers what no ksqlDB does.
    #[error("what answers at {url} is no ksqlDB server ({why}); correct the URL")]
    NotKsqlDb {
        /// The server.
        url: String,
        /// What was answered.
        why: String,
    },
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct KsqlClient {
    http: reqwest::Client,
    base: Url,
}

impl KsqlClient {
    /// A client of the server at `url`. Nothing is asked yet.
    ///
    /// # Errors
    /// When that is no URL.
    pub fn new(url: &str) -> Result<Self, KsqlError> {
        let invalid = || KsqlError::Url(url.to_owned());
        let base = Url::parse(url).map_err(|_| invalid())?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(invalid());
        }
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(CONNECT)
            .build()
            .map_err(|_| invalid())?;
        Ok(Self { http, base })
    }

    /// Asks a question.
    pub(super) async fn ask(&self, statement: &str) -> Result<Vec<Entity>, KsqlError> {
        self.post(statement, &json!({})).await
    }

    /// Has a statement carried out and waits for its end. One that is still being carried out when patience ends is told
    /// as [`KsqlError::Busy`].
    pub(super) async fn execute(
        &self,
        statement: &str,
        properties: &Value,
    ) -> Result<(), KsqlError> {
        let answer = self.post(statement, properties).await?;
        for entity in answer {
            match entity {
                Entity::CurrentStatus(status) => return self.finished(status).await,
                Entity::Warning { message } => return Err(KsqlError::Refused(short(&message))),
                _ => {}
            }
        }
        Err(self.not_ksqldb("no word on the statement's state"))
    }

    async fn finished(&self, current: CurrentStatus) -> Result<(), KsqlError> {
        let mut status = current.command_status;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match status.status.as_str() {
                "SUCCESS" | "RUNNING" => return Ok(()),
                "ERROR" | "TERMINATED" => return Err(KsqlError::Refused(short(&status.message))),
                _ if tokio::time::Instant::now() >= until => {
                    return Err(self.busy("the statement is still being carried out"));
                }
                _ => tokio::time::sleep(POLL).await,
            }
            status = self.status(&current.command_id).await?;
        }
    }

    async fn status(&self, command: &str) -> Result<CommandStatus, KsqlError> {
        let mut url = self.base.clone();
        // Names stand in quotes there, so each part is encoded by itself.
        url.path_segments_mut()
            .map_err(|()| KsqlError::Url(self.base.to_string()))?
            .pop_if_empty()
            .push("status")
            .extend(command.split('/'));
        self.read(self.http.get(url).send().await).await
    }

    async fn post(&self, statement: &str, properties: &Value) -> Result<Vec<Entity>, KsqlError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| KsqlError::Url(self.base.to_string()))?
            .pop_if_empty()
            .push("ksql");
        let body = json!({ "ksql": statement, "streamsProperties": properties });
        let request = self
            .http
            .post(url)
            .header("accept", "application/vnd.ksql.v1+json")
            .json(&body);
        self.read(request.send().await).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        answer: Result<Response, reqwest::Error>,
    ) -> Result<T, KsqlError> {
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = answer
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| self.not_ksqldb(&error.to_string()));
        }
        let Ok(error) = serde_json::from_slice::<ErrorAnswer>(&body) else {
            return Err(self.not_ksqldb(&format!("status {status}")));
        };
        Err(self.error(status, &error))
    }

    fn error(&self, status: StatusCode, error: &ErrorAnswer) -> KsqlError {
        let message = short(&error.message);
        // With a message about the statement itself, 500 is a refusal too: a topic that is made otherwise, for example.
        let about_the_statement = error.message.contains("already exists, with different");
        let refused = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
        if error.error_code == STARTING {
            self.busy("it is starting")
        } else if refused || about_the_statement {
            KsqlError::Refused(message)
        } else {
            self.busy(&message)
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> KsqlError {
        if error.is_timeout() && !error.is_connect() {
            return self.busy("no answer in time");
        }
        let why = if error.is_connect() {
            "nothing listens there".to_owned()
        } else {
            short(&error.to_string())
        };
        KsqlError::Unreachable {
            url: self.base.to_string(),
            why,
        }
    }

    fn busy(&self, why: &str) -> KsqlError {
        KsqlError::Busy {
            url: self.base.to_string(),
            why: why.to_owned(),
        }
    }

    fn not_ksqldb(&self, why: &str) -> KsqlError {
        KsqlError::NotKsqlDb {
            url: self.base.to_string(),
            why: short(why),
        }
    }
}

/// One line of bounded length.
fn short(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
