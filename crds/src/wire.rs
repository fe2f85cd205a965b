//! OpenFactory's wire formats, and the headers this project adds on NATS.

use serde_json::{Map, Value};
use thiserror::Error;

/// Kafka topic with every event of every asset.
pub const ASSETS_TOPIC: &str = "ofa_assets";

/// Compacted Kafka topic with each asset's place in the Unified Namespace.
pub const UNS_MAP_TOPIC: &str = "asset_to_uns_map_topic";

/// Consumer group of the forwarders upstream.
pub const FORWARDER_GROUP: &str = "ofa_fan_out_layer_group";

/// NATS header with the event's [`Cursor`](crate::Cursor).
pub const HEADER_CURSOR: &str = "Nats-Msg-Id";

/// NATS header with the offset of this asset's event before this one on the same partition. Absent
/// where the forwarder does not know it. A client that has not seen that offset has missed events.
pub const HEADER_PREV_OFFSET: &str = "Ofa-Prev-Offset";

/// NATS header with the asset's UUID where the subject holds only its digest,
/// written by [`encode_text`](crate::subject::encode_text).
pub const HEADER_ASSET: &str = "Ofa-Asset-Uuid";

/// NATS header with the attribute's id where the subject holds only its digest.
pub const HEADER_ID: &str = "Ofa-Id";

/// Member of `attributes` that the forwarder adds: when it handled the event (RFC 3339, UTC).
pub const ATTR_FORWARDER_TIMESTAMP: &str = "asset_forwarder_timestamp";

/// Member of `attributes` that the forwarder adds: the Kafka record's timestamp (RFC 3339, UTC).
pub const ATTR_KAFKA_TIMESTAMP: &str = "kafka_timestamp";

/// Member of `attributes` that the forwarder adds: who set that timestamp (producer, broker, unknown).
pub const ATTR_KAFKA_TIMESTAMP_TYPE: &str = "kafka_timestamp_type";

/// A payload that no client can use.
#[derive(Debug, Error)]
pub enum EventError {
    /// Not JSON.
    #[error("the payload is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but no object.
    #[error("the payload is JSON but not an object")]
    NotAnObject,
}

/// An event's members whatever their casing: `VALUE` or `value`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// The attribute's id. On NATS it is in the subject instead.
    pub id: Option<String>,
    /// Any JSON scalar.
    pub value: Value,
    /// Samples, Condition, Events, Method, OpenFactory or UNAVAILABLE.
    pub kind: Option<String>,
    /// What the value is, `Temperature` say.
    pub tag: Option<String>,
    /// Everything around the event; `timestamp` may be missing.
    pub attributes: Map<String, Value>,
}

impl Event {
    /// Reads an event from the JSON of a Kafka value or a NATS payload.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn from_json(payload: &[u8]) -> Result<Self, EventError> {
        let Value::Object(members) = serde_json::from_slice(payload)? else {
            return Err(EventError::NotAnObject);
        };
        let mut event = Self::default();
        for (name, value) in members {
            match name.to_ascii_lowercase().as_str() {
                "id" => event.id = text(value),
                "value" => event.value = value,
                "type" => event.kind = text(value),
                "tag" => event.tag = text(value),
                "attributes" => {
                    if let Value::Object(attributes) = value {
                        event.attributes = attributes;
                    }
                }
                _ => {}
            }
        }
        Ok(event)
    }

    /// The device's timestamp as it stands in the attributes.
    #[must_use]
    pub fn timestamp(&self) -> Option<&str> {
        self.attribute("timestamp")
    }

    /// A text attribute by its name, whatever its casing.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self
            .attributes
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_str())
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_casings_read_the_same() {
        let upper = br#"{"ID":"temp","VALUE":21.5,"TAG":"Temperature","TYPE":"Samples","attributes":{"timestamp":"2026-01-02T03:04:05.678Z"}}"#;
        let lower = br#"{"id":"temp","value":21.5,"tag":"Temperature","type":"Samples","attributes":{"timestamp":"2026-01-02T03:04:05.678Z"}}"#;
        let event = Event::from_json(upper).unwrap();
        assert_eq!(event, Event::from_json(lower).unwrap());
        assert_eq!(event.value, json!(21.5));
        assert_eq!(event.timestamp(), Some("2026-01-02T03:04:05.678Z"));
    }

    #[test]
    fn missing_members_are_no_error_but_other_json_is() {
        assert_eq!(Event::from_json(b"{}").unwrap(), Event::default());
        assert!(matches!(
            Event::from_json(b"[1]"),
            Err(EventError::NotAnObject)
        ));
        assert!(matches!(Event::from_json(b"{"), Err(EventError::Json(_))));
    }
}
