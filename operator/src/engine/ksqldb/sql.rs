//! The one place where names and values become ksqlDB's SQL.
//!
//! Nothing is put into a statement but through [`Identifier`] and [`literal`], so a group may be called
//! `'; DROP STREAM x; --`.

use std::fmt;

use thiserror::Error;

use super::Wanted;

/// Longest name: ksqlDB makes names of internal topics from it, with some 100 characters around it, and Kafka
/// takes 249.
const MAX_NAME: usize = 149;

/// A name that ksqlDB has no way to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' cannot name a stream; use up to {MAX_NAME} letters, digits, '_' and '-', beginning with a letter"
)]
pub struct IdentifierError(String);

/// The name of a stream, table or query as ksqlDB keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier(String);

impl Identifier {
    /// The name that ksqlDB makes of `text`: in upper case, unless it needs quotes.
    ///
    /// # Errors
    /// When no topic could be named after it.
    pub fn new(text: &str) -> Result<Self, IdentifierError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let usable = text.len() <= MAX_NAME
            && text.bytes().all(allowed)
            && text.starts_with(|first: char| first.is_ascii_alphabetic());
        if !usable {
            return Err(IdentifierError(text.to_owned()));
        }
        Ok(Self(if text.contains('-') {
            text.to_owned()
        } else {
            text.to_ascii_uppercase()
        }))
    }

    /// A name as ksqlDB tells it, which may hold anything.
    #[must_use]
    pub fn kept(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name as ksqlDB tells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// In quotes, within which no word is reserved and no letter folded.
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.replace('`', "``"))
    }
}

/// Text as an expression. ksqlDB replaces `${name}` by a variable's value even within quotes, so such text is put
/// together from two parts.
#[must_use]
pub fn literal(text: &str) -> String {
    let quoted = |part: &str| format!("'{}'", part.replace('\'', "''"));
    let mut parts = text.split("${");
    let mut expression = quoted(parts.next().unwrap_or_default());
    let mut open = text.split("${").next().unwrap_or_default().to_owned();
    for part in parts {
        open.push('$');
        expression = format!(
            "CONCAT({}, {})",
            quoted(&open),
            quoted(&format!("{{{part}"))
        );
        open.push('{');
        open.push_str(part);
    }
    expression
}

/// Text where ksqlDB takes no expression but quoted text alone: topics, which hold no special characters.
fn property(topic: &str) -> String {
    format!("'{}'", topic.replace('\'', "''"))
}

/// The statement that makes a group's stream.
#[must_use]
pub fn create_stream(wanted: &Wanted) -> String {
    let mut with = format!(
        "KAFKA_TOPIC={}, VALUE_FORMAT='JSON'",
        property(&wanted.topic)
    );
    if let Some(partitions) = wanted.partitions {
        with.push_str(&format!(", PARTITIONS={partitions}"));
    }
    if let Some(retention) = wanted.retention_ms {
        with.push_str(&format!(", RETENTION_MS={retention}"));
    }
    // Each column by its name: SELECT s.* would call them S_ID and so on.
    format!(
        "CREATE STREAM {} WITH ({with}) AS SELECT s.`ASSET_UUID` AS `ASSET_UUID`, s.`ID` AS `ID`, s.`VALUE` AS `VALUE`, \
         s.`TAG` AS `TAG`, s.`TYPE` AS `TYPE`, s.`ATTRIBUTES` AS `ATTRIBUTES` FROM {} s JOIN {} h \
         ON s.`ASSET_UUID` = h.`ASSET_UUID` WHERE h.`UNS_LEVELS`[{}] = {};",
        wanted.name,
        wanted.source,
        wanted.map,
        literal(&wanted.level),
        literal(wanted.value.as_str()),
    )
}

/// The statement that removes a stream and its query. Its topic stays: ksqlDB deletes the topic even of a stream that it
/// then refuses to drop, so that is never asked of it.
#[must_use]
pub fn drop_stream(name: &Identifier) -> String {
    format!("DROP STREAM {name};")
}

/// The statement that lets a paused query go on.
#[must_use]
pub fn resume(query: &str) -> String {
    // The id of a query is no quoted name in ksqlDB's grammar unless it must be.
    format!("RESUME {};", Identifier::kept(query))
}

/// The question about one stream.
#[must_use]
pub fn describe(name: &Identifier) -> String {
    format!("DESCRIBE {name} EXTENDED;")
}
