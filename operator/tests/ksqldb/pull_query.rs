//! Pull queries over a table of latest values, answered as ksqlDB 7.9 does: the lines, codes and words are those of a real one. What the
//! table holds is made of events as `LATEST_BY_OFFSET` makes it: of each column the last value that is not null.
//!
//! It stands alone, so that the tests of whoever asks such a server can start one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use ofa_crds::ksql::varchar;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The columns of OpenFactory's table `assets`.
const COLUMNS: [&str; 7] = [
    "KEY",
    "ASSET_UUID",
    "ID",
    "VALUE",
    "TYPE",
    "TAG",
    "TIMESTAMP",
];

type Row = [Option<String>; COLUMNS.len()];

/// The table `ASSETS`.
#[derive(Default)]
pub(crate) struct AssetsTable(Mutex<BTreeMap<String, Row>>);

impl AssetsTable {
    /// Takes an event in, as OpenFactory's set-up has ksqlDB do it.
    pub(crate) fn take(&self, asset: &str, event: &str) {
        let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(event) else {
            return;
        };
        let column = |name: &str| {
            let mut all = members.iter();
            let found = all.find(|(member, _)| member.eq_ignore_ascii_case(name));
            found.and_then(|(_, value)| text(value))
        };
        let Some(id) = column("ID") else { return };
        let attributes = members
            .iter()
            .find(|(member, _)| member.eq_ignore_ascii_case("ATTRIBUTES"));
        let timestamp = attributes.and_then(|(_, map)| {
            let map: BTreeMap<String, &RawValue> = serde_json::from_str(map.get()).ok()?;
            text(map.get("timestamp")?)
        });
        let key = format!("{asset}|{id}");
        let newer = [
            Some(key.clone()),
            Some(asset.to_owned()),
            Some(id),
            column("VALUE"),
            column("TYPE"),
            column("TAG"),
            timestamp,
        ];
        let mut rows = self.0.lock();
        let row = rows.entry(key).or_default();
        for (column, newer) in row.iter_mut().zip(newer) {
            *column = newer.or(column.take());
        }
    }

    /// The route of such queries.
    pub(crate) fn route(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/query-stream", post(query))
            .with_state(Arc::clone(self))
    }

    fn select(&self, sql: &str) -> Result<String, String> {
        let tokens = tokens(sql);
        let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let from = words.iter().position(|word| *word == "FROM");
        let (Some("SELECT"), Some(from)) = (words.first().copied(), from) else {
            return Err("line 1:1: Syntax Error".to_owned());
        };
        let [table, "WHERE", column, "=", value @ .., ";"] = &words[from + 1..] else {
            return Err("WHERE clause missing or invalid".to_owned());
        };
        if name(table) != "ASSETS" {
            let table = name(table);
            return Err(format!(
                "Exception while preparing statement: {table} does not exist."
            ));
        }
        let index = |word: &str| {
            let wanted = name(word);
            let found = COLUMNS.iter().position(|column| *column == wanted);
            found.ok_or_else(|| format!("Column '{wanted}' cannot be resolved."))
        };
        let chosen = words[1..from].iter().filter(|word| **word != ",");
        let chosen: Vec<usize> = chosen.map(|word| index(word)).collect::<Result<_, _>>()?;
        let (column, value) = (index(column)?, expression(value)?);
        let names: Vec<&str> = chosen.iter().map(|at| COLUMNS[*at]).collect();
        let types: Vec<&str> = chosen.iter().map(|_| "STRING").collect();
        let mut out =
            json!({"queryId": "query_1795246047069", "columnNames": names, "columnTypes": types})
                .to_string();
        for row in self.0.lock().values() {
            if row[column].as_deref() == Some(value.as_str()) {
                let cells: Vec<&Option<String>> = chosen.iter().map(|at| &row[*at]).collect();
                out.push_str(&format!("\n{}", json!(cells)));
            }
        }
        out.push('\n');
        Ok(out)
    }
}

async fn query(State(table): State<Arc<AssetsTable>>, Json(body): Json<Value>) -> Response {
    let sql = body["sql"].as_str().unwrap_or_default();
    match table.select(sql) {
        Ok(lines) => {
            let kind = [(header::CONTENT_TYPE, "application/vnd.ksqlapi.delimited.v1")];
            (kind, lines).into_response()
        }
        Err(message) => {
            let error = json!({"@type": "statement_error", "error_code": 40001, "message": message, "statementText": sql, "entities": []});
            (StatusCode::BAD_REQUEST, Json(error)).into_response()
        }
    }
}

fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        json => varchar::text(json).ok(),
    }
}

/// A name as ksqlDB keeps it.
fn name(word: &str) -> String {
    let quoted = word
        .strip_prefix('`')
        .and_then(|word| word.strip_suffix('`'));
    quoted.map_or_else(|| word.to_uppercase(), |name| name.replace("``", "`"))
}

/// The text of a literal, or of several put together.
fn expression(words: &[&str]) -> Result<String, String> {
    match words {
        [literal] => {
            let inner = literal
                .strip_prefix('\'')
                .and_then(|it| it.strip_suffix('\''));
            let text = inner.ok_or("not a literal")?.replace("''", "'");
            // Variables are put in even within quotes.
            if text.contains("${") {
                return Err("a variable that is not defined".to_owned());
            }
            Ok(text)
        }
        ["CONCAT", "(", first @ .., ",", last, ")"] => {
            Ok(expression(first)? + &expression(&[last])?)
        }
        _ => Err("not an expression".to_owned()),
    }
}

/// Names, quoted names, literals and signs.
fn tokens(sql: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut chars = sql.chars().peekable();
    while let Some(first) = chars.next() {
        let mut token = first.to_string();
        if matches!(first, '`' | '\'') {
            while let Some(next) = chars.next() {
                token.push(next);
                if next == first && chars.peek() != Some(&first) {
                    break;
                }
                if next == first {
                    token.extend(chars.next());
                }
            }
        } else if first.is_alphanumeric() || first == '_' {
            while let Some(next) = chars.next_if(|it| it.is_alphanumeric() || *it == '_') {
                token.push(next);
            }
        } else if first.is_whitespace() {
            continue;
        }
        all.push(token);
    }
    all
}
