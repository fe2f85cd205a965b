//! The state as a ksqlDB server's table of it says: pull queries over REST.

use std::time::Duration;

use ofa_crds::ksql::{Identifier, IdentifierError, literal};
use reqwest::{Client, Url, redirect};
use serde_json::{Value, json};
use thiserror::Error;

use super::Item;

/// A pull query by key takes milliseconds, one over a table tens; a server that takes longer is busy with something else.
const PATIENCE: Duration = Duration::from_secs(5);

/// What answers are asked for in: one line of column names, then one for each row.
const ACCEPT: &str = "application/vnd.ksqlapi.delimited.v1";

/// What stands between asset and id in the table's key, as upstream's set-up writes it.
const SEPARATOR: char = '|';

/// How much of an error is told: ksqlDB's may have fifty kilobytes.
const MAX_MESSAGE: usize = 300;

/// Why ksqlDB does not tell the state.
#[derive(Debug, Error)]
pub enum KsqlStateError {
    /// No URL of a server.
    #[error("KSQLDB_URL '{0}' is no URL of a ksqlDB server; write http://<host>:8088")]
    Url(String),
    /// No name of a table.
    #[error("KSQLDB_ASSETS_TABLE: {0}")]
    Table(#[from] IdentifierError),
    /// No client can be made, or nobody answers.
    #[error("ksqlDB cannot be asked: {0}")]
    Http(#[from] reqwest::Error),
    /// It does not take the query.
    #[error("ksqlDB refuses: {0}")]
    Refused(String),
    /// It answers what no ksqlDB does.
    #[error("ksqlDB's answer cannot be read: {0}")]
    Answer(String),
}

/// A server's table of the latest values.
#[derive(Debug, Clone)]
pub struct KsqlState {
    http: Client,
    url: Url,
    table: Identifier,
}

impl KsqlState {
    /// The table of the server at `url`. Nothing is asked yet.
    ///
    /// # Errors
    /// When these name no server or table.
    pub fn new(url: &str, table: &str) -> Result<Self, KsqlStateError> {
        let invalid = || KsqlStateError::Url(url.to_owned());
        let mut endpoint = Url::parse(url).map_err(|_| invalid())?;
        if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
            return Err(invalid());
        }
        endpoint.set_path("/query-stream");
        let http = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            http,
            url: endpoint,
            table: Identifier::new(table)?,
        })
    }

    /// One attribute of an asset.
    ///
    /// # Errors
    /// When ksqlDB does not tell.
    pub async fn item(&self, asset: &str, id: &str) -> Result<Option<Item>, KsqlStateError> {
        let key = format!("{asset}{SEPARATOR}{id}");
        let rows = self.select("KEY", &key, asset).await?;
        // Names that hold the separator share a key.
        Ok(rows.into_iter().find(|item| item.id == id))
    }

    /// All attributes of an asset, by id.
    ///
    /// # Errors
    /// When ksqlDB does not tell.
    pub async fn items(&self, asset: &str) -> Result<Vec<Item>, KsqlStateError> {
        let mut items = self.select("ASSET_UUID", asset, asset).await?;
        items.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(items)
    }

    async fn select(
        &self,
        column: &str,
        value: &str,
        asset: &str,
    ) -> Result<Vec<Item>, KsqlStateError> {
        let sql = format!(
            "SELECT `ASSET_UUID`, `ID`, `VALUE`, `TYPE`, `TAG`, `TIMESTAMP` FROM {} WHERE `{column}` = {};",
            self.table,
            literal(value)
        );
        let request = self.http.post(self.url.clone()).header("accept", ACCEPT);
        let answer = request.json(&json!({ "sql": sql })).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            return Err(KsqlStateError::Refused(message(&text)));
        }
        rows(&text, asset)
    }
}

/// The asset's rows of an answer.
fn rows(text: &str, asset: &str) -> Result<Vec<Item>, KsqlStateError> {
    let unreadable = |line: &str| KsqlStateError::Answer(short(line));
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let head = lines.next().unwrap_or_default();
    let is_head = |head: &Value| head["columnNames"].is_array();
    serde_json::from_str(head)
        .ok()
        .filter(is_head)
        .ok_or_else(|| unreadable(head))?;
    let mut items = Vec::new();
    for line in lines {
        let row: [Option<String>; 6] =
            serde_json::from_str(line).map_err(|_| KsqlStateError::Refused(message(line)))?;
        let [of, id, value, kind, tag, timestamp] = row;
        let Some(id) = id.filter(|_| of.as_deref() == Some(asset)) else {
            continue;
        };
        items.push(Item {
            id,
            value,
            kind,
            tag,
            timestamp,
        });
    }
    Ok(items)
}

/// What an error says, on one line.
fn message(text: &str) -> String {
    let error: Value = serde_json::from_str(text).unwrap_or_default();
    short(error["message"].as_str().unwrap_or(text))
}

fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_asset_s_own() {
        let head = r#"{"queryId":"query_1","columnNames":["ASSET_UUID"],"columnTypes":["STRING"]}"#;
        let answer = format!(
            "{head}\n[\"A\",\"x\",\"1\",null,\"Position\",null]\n[\"A|x\",\"y\",\"2\",null,null,null]\n"
        );
        let items = rows(&answer, "A").unwrap();
        let x = Item {
            id: "x".into(),
            value: Some("1".into()),
            tag: Some("Position".into()),
            ..Item::default()
        };
        assert_eq!(items, [x]);
        assert_eq!(rows(head, "A").unwrap(), []);
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for answer in ["", "<html>", "[]", "{}"] {
            assert!(rows(answer, "A").is_err(), "{answer}");
        }
        let head = r#"{"queryId":"q","columnNames":[],"columnTypes":[]}"#;
        let failed =
            format!("{head}\n{{\"@type\":\"generic_error\",\"message\":\"out of\\nmemory\"}}\n");
        let error = rows(&failed, "A").unwrap_err().to_string();
        assert_eq!(error, "ksqlDB refuses: out of memory");
    }
}
