//! ksqlDB's names and values: how they are written in its SQL, and how it writes those of events.
//!
//! Nothing is put into a statement but through [`Identifier`] and [`literal`], so a group may be called
//! `'; DROP STREAM x; --`.

pub mod varchar;

use std::fmt;

use thiserror::Error;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_no_quotes_and_names_no_variable() {
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("${x}"), "CONCAT('$', '{x}')");
    }

    #[test]
    fn a_name_is_kept_as_ksqldb_keeps_it() {
        assert_eq!(Identifier::new("assets").unwrap().to_string(), "`ASSETS`");
        assert_eq!(Identifier::new("a-b").unwrap().to_string(), "`a-b`");
        assert!(Identifier::new("a b").is_err());
    }
}
