//! What an event's Kafka value says, whoever wrote it: `VALUE`, `value`, or `S_VALUE` of a ksqlDB join.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The columns of an event as ksqlDB's VARCHAR shows them: text as it is, anything else as its JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The attribute's id.
    pub id: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// Samples, Events, Condition and others.
    pub kind: Option<String>,
    /// What the value is.
    pub tag: Option<String>,
    /// The device's timestamp.
    pub timestamp: Option<String>,
}

impl Columns {
    /// Reads a Kafka value; `None` for what is no JSON object.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let members: HashMap<String, &RawValue> = serde_json::from_slice(json).ok()?;
        let mut columns = Self::default();
        for (name, value) in members {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("s_").unwrap_or(&name) {
                "id" => columns.id = text(value),
                "value" => columns.value = text(value),
                "type" => columns.kind = text(value),
                "tag" => columns.tag = text(value),
                "attributes" => columns.timestamp = timestamp(value),
                _ => {}
            }
        }
        Some(columns)
    }
}

fn timestamp(attributes: &RawValue) -> Option<String> {
    let attributes: HashMap<String, &RawValue> = serde_json::from_str(attributes.get()).ok()?;
    let found = attributes
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("timestamp"));
    found.and_then(|(_, value)| text(value))
}

fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        json if json.starts_with('"') => serde_json::from_str(json).ok(),
        other => Some(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writers_casing_reads_the_same() {
        let expected = Columns {
            id: Some("temp".into()),
            value: Some("21.50".into()),
            kind: Some("Samples".into()),
            tag: None,
            timestamp: Some("2026-01-02T03:04:05Z".into()),
        };
        for json in [
            r#"{"ID":"temp","VALUE":21.50,"TYPE":"Samples","TAG":null,"attributes":{"timestamp":"2026-01-02T03:04:05Z"}}"#,
            r#"{"id":"temp","value":"21.50","type":"Samples","attributes":{"TIMESTAMP":"2026-01-02T03:04:05Z"}}"#,
            r#"{"S_ID":"temp","S_VALUE":"21.50","S_TYPE":"Samples","S_ATTRIBUTES":{"timestamp":"2026-01-02T03:04:05Z"}}"#,
        ] {
            assert_eq!(Columns::parse(json.as_bytes()).as_ref(), Some(&expected));
        }
    }

    #[test]
    fn what_is_no_event_has_no_columns() {
        assert_eq!(Columns::parse(b"[1]"), None);
        assert_eq!(Columns::parse(b"{\"id\":"), None);
        assert_eq!(Columns::parse(b"{}"), Some(Columns::default()));
    }
}
