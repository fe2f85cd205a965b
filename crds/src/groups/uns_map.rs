//! A record of the UNS map: to which levels of the Unified Namespace an asset belongs.
//!
//! Read as ksqlDB reads it: column names in any casing (the upper-case one wins where several are there),
//! level names by the letter, numbers and booleans as text, whatever follows the object ignored.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Map, Value};
use thiserror::Error;

/// The compacted topic of the map, key = the asset's UUID.
pub const UNS_MAP_TOPIC: &str = "asset_to_uns_map_topic";

/// A record that says nothing about its asset. What was known before stays.
#[derive(Debug, Error)]
pub enum UnsMapError {
    /// No JSON.
    #[error("the UNS map record is not valid JSON ({0}); register the asset again")]
    Json(#[from] serde_json::Error),
    /// JSON of another kind.
    #[error("the UNS map record is not a JSON object; register the asset again")]
    NotAnObject,
    /// Levels of another kind.
    #[error("UNS_LEVELS is neither an object nor null; register the asset again")]
    LevelsNotAnObject,
}

/// The levels of an asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnsEntry {
    levels: BTreeMap<String, String>,
}

impl UnsEntry {
    /// Reads a record's value. `None`: the asset is not registered (a tombstone, or null levels as
    /// deregistering writes them).
    ///
    /// # Errors
    /// When the value is unreadable.
    pub fn parse(value: Option<&[u8]>) -> Result<Option<Self>, UnsMapError> {
        let Some(json) = value else {
            return Ok(None);
        };
        let mut reader = serde_json::Deserializer::from_slice(json);
        let columns = match Value::deserialize(&mut reader)? {
            Value::Object(columns) => columns,
            Value::Null => return Ok(None),
            _ => return Err(UnsMapError::NotAnObject),
        };
        match column(&columns, "UNS_LEVELS") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(levels)) => Ok(Some(Self {
                levels: levels
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                    .collect(),
            })),
            Some(_) => Err(UnsMapError::LevelsNotAnObject),
        }
    }

    /// The value of a level; `None` when the asset does not have it.
    #[must_use]
    pub fn level(&self, name: &str) -> Option<&str> {
        self.levels.get(name).map(String::as_str)
    }

    /// All levels and their values, by level name.
    pub fn levels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.levels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for UnsEntry {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(levels: I) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            levels: levels.into_iter().map(owned).collect(),
        }
    }
}

fn column<'a>(columns: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    columns.get(name).or_else(|| {
        let found = columns
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    })
}

/// A level's value as text; null is no value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(json: &str) -> Option<Vec<(String, String)>> {
        let entry = UnsEntry::parse(Some(json.as_bytes())).unwrap();
        entry.map(|entry| entry.levels.into_iter().collect())
    }

    fn pairs(levels: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(
            levels
                .iter()
                .map(|&(a, b)| (a.to_owned(), b.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn both_casings_are_read() {
        let upper = r#"{"ASSET_UUID":"CNC-1","UNS_ID":"OF/WC002/cnc","UNS_LEVELS":{"inc":"OF","workcenter":"WC002"},"UPDATED_AT":1761338400000}"#;
        assert_eq!(
            levels(upper),
            pairs(&[("inc", "OF"), ("workcenter", "WC002")])
        );
        let lower = r#"{"uns_id":"x","uns_levels":{"workcenter":"Weld"}}"#;
        assert_eq!(levels(lower), pairs(&[("workcenter", "Weld")]));
        let both = r#"{"uns_levels":{"a":"1"},"UNS_LEVELS":{"a":"2"}}"#;
        assert_eq!(levels(both), pairs(&[("a", "2")]));
    }

    #[test]
    fn deregistered_is_absent() {
        assert_eq!(UnsEntry::parse(None).unwrap(), None);
        for json in ["null", "{}", r#"{"uns_id":null,"uns_levels":null}"#] {
            assert_eq!(levels(json), None, "{json}");
        }
    }

    #[test]
    fn levels_may_be_null_or_no_text() {
        let json = r#"{"UNS_LEVELS":{"a":null,"b":7,"c":true}} and more"#;
        assert_eq!(levels(json), pairs(&[("b", "7"), ("c", "true")]));
    }

    #[test]
    fn what_is_unreadable_says_nothing() {
        for json in ["", "not json", "[1]", r#"{"UNS_LEVELS":"notamap"}"#] {
            assert!(UnsEntry::parse(Some(json.as_bytes())).is_err(), "{json}");
        }
    }
}
