//! What an event's Kafka value says, whoever wrote it: `VALUE`, `value`, or `S_VALUE` of a ksqlDB join.

use std::collections::BTreeMap;

use ofa_crds::ksql::varchar;
use serde_json::value::RawValue;

/// The columns of an event as ksqlDB's VARCHAR shows them.
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
        // In the order of their names, so that a column's own spelling comes first, wherever it stands in the event.
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(json).ok()?;
        let column = |name: &str| {
            let mut all = members.iter();
            let found = all.find(|(member, _)| {
                let plain = member.strip_prefix("S_").unwrap_or(member);
                plain.eq_ignore_ascii_case(name)
            });
            found.map(|(_, value)| *value)
        };
        Some(Self {
            id: column("ID").and_then(text),
            value: column("VALUE").and_then(text),
            kind: column("TYPE").and_then(text),
            tag: column("TAG").and_then(text),
            timestamp: column("ATTRIBUTES").and_then(timestamp),
        })
    }
}

fn timestamp(attributes: &RawValue) -> Option<String> {
    let attributes: BTreeMap<String, &RawValue> = serde_json::from_str(attributes.get()).ok()?;
    let is_it = |(name, _): &(&String, _)| name.eq_ignore_ascii_case("timestamp");
    let any = || attributes.iter().find(is_it).map(|(_, value)| value);
    let value = attributes.get("timestamp").or_else(any);
    value.and_then(|value| text(value))
}

fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        json => varchar::text(json).ok(),
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
