//! A position in a stream: what a client remembers and what it resumes from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::groups::GroupName;
use crate::names::is_topic_name;

/// Header of a derived record: the cursor of the record that it was made from. What one asset has in several derived topics
/// can be put in order by it.
pub const SOURCE_HEADER: &str = "Ofa-Source";

/// Header of an asset's first derived record in a group's topic: the topic of the group where its record before that one is.
pub const MOVED_FROM_HEADER: &str = "Ofa-Moved-From";

/// The topic that an asset was in before, where the last two headers of its derived record tell it. `before_last` is the name of
/// one, `last` name and value of the other. Those before them have come with the record's source, and may say anything.
#[must_use]
pub fn moved_from<'a>(before_last: &[u8], last: (&[u8], Option<&'a [u8]>)) -> Option<&'a str> {
    let topic = std::str::from_utf8(last.1?).ok()?;
    let is_ours = before_last == SOURCE_HEADER.as_bytes() && last.0 == MOVED_FROM_HEADER.as_bytes();
    (is_ours && GroupName::is_topic(topic)).then_some(topic)
}

/// Text that is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no cursor; it must read <topic>/<partition>/<offset>, for example ofa_assets/3/1042"
)]
pub struct CursorError(String);

/// The position of one record in Kafka. For one asset on one partition it only grows.
///
/// Written `<topic>/<partition>/<offset>`; topic names cannot hold a `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// Kafka topic.
    pub topic: String,
    /// Partition of the topic.
    pub partition: u32,
    /// Offset of the record in the partition.
    pub offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        parse(text).ok_or_else(|| CursorError(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<Cursor> {
    let mut parts = text.split('/');
    let (topic, partition, offset) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_topic_name(topic) {
        return None;
    }
    Some(Cursor {
        topic: topic.to_owned(),
        partition: number(partition)?.try_into().ok()?,
        offset: number(offset)?,
    })
}

/// Only plain decimal digits, so that each position has one spelling.
fn number(digits: &str) -> Option<u64> {
    let plain =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

impl TryFrom<String> for Cursor {
    type Error = CursorError;

    fn try_from(text: String) -> Result<Self, CursorError> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_cursor_is_refused() {
        for bad in [
            "", "t", "t/1", "t/1/2/3", "/1/2", "t/-1/2", "t/1/+2", "t/01/2", "t /1/2", "t/1/",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back_as_written(topic in "[a-zA-Z0-9._-]{0,39}[a-zA-Z0-9_-]", partition: u32, offset: u64) {
            let cursor = Cursor { topic, partition, offset };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in ".{0,60}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
