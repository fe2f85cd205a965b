//! The payload OpenFactory's clients expect, made by editing the Kafka value's bytes: by forwarders, and by the
//! replay service for whoever has missed what a forwarder sent.
//!
//! The id member goes, and three members are added at the end of `attributes`. Where `attributes`
//! already has a member of one of these names, ours stands behind it, and JSON readers take the last.

mod json;
mod marks;
mod stamp;
mod timestamp;

use std::borrow::Cow;
use std::ops::Range;

use thiserror::Error;

use json::Layout;
pub use stamp::{Stamp, Timestamp};
pub use timestamp::TimestampKind;

/// What is published for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "kafka", derive(clap::ValueEnum))]
pub enum PayloadFormat {
    /// As OpenFactory's clients expect it: without the id, with the forwarder's timestamps.
    #[cfg_attr(feature = "kafka", value(name = "OpenFactory"))]
    OpenFactory,
    /// The Kafka value, byte by byte.
    #[cfg_attr(feature = "kafka", value(name = "Verbatim"))]
    Verbatim,
}

/// Why a Kafka value is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Value that is no JSON.
    #[error("the value is not valid JSON")]
    InvalidJson,
    /// JSON, but no object.
    #[error("the value is JSON but not an object")]
    NotAnObject,
    /// No usable id member.
    #[error("the event has no id (a member 'id' in any casing that is a text or a number)")]
    MissingId,
}

/// The id of an event and its payload, in the pieces it is to be written in.
pub struct Edited<'a> {
    /// The attribute's id.
    pub id: Cow<'a, str>,
    json: &'a [u8],
    /// At most two edits, by position: bytes that go, and whether the stamp takes their place.
    edits: [(Range<usize>, Insert); 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Insert {
    Nothing,
    /// The members alone.
    Members,
    /// A comma and the members.
    CommaMembers,
    /// The members in braces.
    Object,
    /// `"attributes":` and the object.
    Attributes,
    /// A comma, `"attributes":` and the object.
    CommaAttributes,
}

impl Insert {
    /// What stands before and after the members; `None` where they do not go.
    const fn around(self) -> Option<(&'static [u8], &'static [u8])> {
        match self {
            Self::Nothing => None,
            Self::Members => Some((b"", b"")),
            Self::CommaMembers => Some((b",", b"")),
            Self::Object => Some((b"{", b"}")),
            Self::Attributes => Some((b"\"attributes\":{", b"}")),
            Self::CommaAttributes => Some((b",\"attributes\":{", b"}")),
        }
    }
}

impl<'a> Edited<'a> {
    /// Reads an event's id and finds what to edit for `format`.
    ///
    /// # Errors
    /// When the value is no event.
    #[inline]
    pub fn new(value: &'a [u8], format: PayloadFormat) -> Result<Self, PayloadError> {
        let (id, edits) = match format {
            PayloadFormat::OpenFactory => {
                let found = json::layout(value)?;
                (found.id.clone(), openfactory_edits(value, &found))
            }
            PayloadFormat::Verbatim => {
                let end = value.len()..value.len();
                (
                    json::id_only(value)?,
                    [(end.clone(), Insert::Nothing), (end, Insert::Nothing)],
                )
            }
        };
        Ok(Self {
            id: id_text(&value[id])?,
            json: value,
            edits,
        })
    }

    /// Length of the payload in bytes.
    pub fn size(&self, stamp: &mut Stamp, timestamp: Timestamp) -> usize {
        let mut size = self.json.len();
        for (cut, insert) in &self.edits {
            size -= cut.len();
            if let Some((before, after)) = insert.around() {
                size += before.len() + stamp.members(timestamp).len() + after.len();
            }
        }
        size
    }

    /// Appends the payload.
    pub fn push(&self, out: &mut Vec<u8>, stamp: &mut Stamp, timestamp: Timestamp) {
        let mut from = 0;
        for (cut, insert) in &self.edits {
            out.extend_from_slice(&self.json[from..cut.start]);
            if let Some((before, after)) = insert.around() {
                out.extend_from_slice(before);
                out.extend_from_slice(stamp.members(timestamp));
                out.extend_from_slice(after);
            }
            from = cut.end;
        }
        out.extend_from_slice(&self.json[from..]);
    }
}

fn openfactory_edits(value: &[u8], found: &Layout) -> [(Range<usize>, Insert); 2] {
    let stamp = match &found.attributes {
        Some(attributes) => stamp_edit(value, attributes),
        None if found.members > 1 => (found.close..found.close, Insert::CommaAttributes),
        None => (found.close..found.close, Insert::Attributes),
    };
    let id = (found.id_member.clone(), Insert::Nothing);
    if id.0.start < stamp.0.start {
        [id, stamp]
    } else {
        [stamp, id]
    }
}

/// Where the stamp goes when there are `attributes`: into the object, in place of `null`, and
/// nowhere when they are something else.
fn stamp_edit(value: &[u8], attributes: &Range<usize>) -> (Range<usize>, Insert) {
    match value[attributes.start] {
        b'{' => {
            let close = attributes.end - 1;
            let inside = &value[attributes.start + 1..close];
            let insert = if inside.trim_ascii().is_empty() {
                Insert::Members
            } else {
                Insert::CommaMembers
            };
            (close..close, insert)
        }
        b'n' => (attributes.clone(), Insert::Object),
        _ => (attributes.end..attributes.end, Insert::Nothing),
    }
}

/// The text of an id: a string without quotes and escapes, or a number as it stands.
fn id_text(value: &[u8]) -> Result<Cow<'_, str>, PayloadError> {
    let inner = match value {
        [b'"', inner @ .., b'"'] if inner.contains(&b'\\') => {
            return serde_json::from_slice(value)
                .map(Cow::Owned)
                .map_err(|_| PayloadError::InvalidJson);
        }
        [b'"', inner @ .., b'"'] => inner,
        scalar => scalar,
    };
    std::str::from_utf8(inner)
        .map(Cow::Borrowed)
        .map_err(|_| PayloadError::InvalidJson)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const STAMP: Timestamp = Timestamp {
        ms: 1_767_322_985_678,
        kind: TimestampKind::Producer,
    };

    fn edit(value: &str) -> Result<(String, String), PayloadError> {
        let mut stamp = Stamp::default();
        stamp.set_now(1_767_322_986_000);
        let edited = Edited::new(value.as_bytes(), PayloadFormat::OpenFactory)?;
        let mut out = Vec::new();
        edited.push(&mut out, &mut stamp, STAMP);
        assert_eq!(edited.size(&mut stamp, STAMP), out.len());
        Ok((edited.id.into_owned(), String::from_utf8(out).unwrap()))
    }

    /// The same by a JSON library: the yardstick.
    fn plainly(value: &str) -> Result<(Value, Value), PayloadError> {
        let parsed: Value = serde_json::from_str(value).map_err(|_| PayloadError::InvalidJson)?;
        let Value::Object(mut members) = parsed else {
            return Err(PayloadError::NotAnObject);
        };
        let usable = |value: &Value| {
            !matches!(value, Value::Null | Value::Object(_) | Value::Array(_)) && value != ""
        };
        let key = members
            .iter()
            .find(|(k, v)| k.eq_ignore_ascii_case("id") && usable(v))
            .map(|(k, _)| k.clone());
        let id = members
            .remove(&key.ok_or(PayloadError::MissingId)?)
            .unwrap();
        let name = members
            .keys()
            .find(|k| k.eq_ignore_ascii_case("attributes"))
            .cloned();
        let attributes = members
            .entry(name.unwrap_or("attributes".into()))
            .or_insert(Value::Null);
        if attributes.is_null() {
            *attributes = json!({});
        }
        if let Value::Object(attributes) = attributes {
            attributes.insert(
                "asset_forwarder_timestamp".into(),
                "2026-01-02T03:03:06.000Z".into(),
            );
            attributes.insert("kafka_timestamp".into(), "2026-01-02T03:03:05.678Z".into());
            attributes.insert("kafka_timestamp_type".into(), "producer".into());
        }
        Ok((id, Value::Object(members)))
    }

    fn agree(value: &str) -> Result<(), TestCaseError> {
        match (edit(value), plainly(value)) {
            (Ok((id, payload)), Ok((plain_id, plain))) => {
                let id = if plain_id.is_string() {
                    Value::String(id)
                } else {
                    serde_json::from_str(&id).unwrap()
                };
                prop_assert_eq!(id, plain_id);
                let parsed = serde_json::from_str::<Value>(&payload);
                prop_assert_eq!(parsed.ok(), Some(plain), "{} became {}", value, payload);
            }
            (Err(ours), Err(plain)) => prop_assert_eq!(ours, plain, "{}", value),
            (ours, plain) => prop_assert!(false, "{value}: {ours:?} but {plain:?}"),
        }
        Ok(())
    }

    #[test]
    fn the_id_goes_and_the_stamp_comes_with_everything_else_kept() {
        insta::assert_snapshot!(edit(r#"{"ID":"temp","VALUE":21.50,"TAG":"Temperature","TYPE":"Samples","attributes":{"timestamp":"2026-01-02T03:04:05.678Z"}}"#).unwrap().1);
        insta::assert_snapshot!(
            edit(r#"{"VALUE":"AVAILABLE", "attributes" : { } , "id" : "avail"}"#)
                .unwrap()
                .1
        );
    }

    #[test]
    fn every_arrangement_agrees_with_a_json_library() {
        for value in [
            r#"{"id":"a"}"#,
            r#"{ "id" : "a" }"#,
            r#"{"id":"a","attributes":null}"#,
            r#"{"attributes":{},"id":"a"}"#,
            r#"{"attributes":{"x":{"y":[1,2]}},"id":"a","z":1}"#,
            r#"{"v":1,"ID":"a","w":2}"#,
            r#"{"v":1,"Id":7}"#,
            r#"{"id":null,"ID":"b"}"#,
            r#"{"id":"","v":1}"#,
            r#"{"\u0069d":"a"}"#,
            r#"{"id":"a\"\\\u00e9"}"#,
            r#"{"id":"a","attributes":[1]}"#,
            r#"{"id":"a","attributes":"x"}"#,
            r#"{"id":true}"#,
            r#"{"id":-1.5e3}"#,
            "{}",
            "[]",
            "1",
            "\"x\"",
            "",
            "{",
            r#"{"id":"a"}}"#,
            r#"{"id":"a",}"#,
            r#"{id:1}"#,
            r#"{"id":01}"#,
            r#"{"id":"a","v":NaN}"#,
            "{\"id\":\"a\n\"}",
            r#"{"id":"a","v":"\x"}"#,
            r#"{"id":"a" "v":1}"#,
            "null x",
        ] {
            agree(value).unwrap();
        }
    }

    #[test]
    fn nesting_is_bounded_as_in_the_library() {
        for depth in [100, 126, 127, 128, 200, 100_000] {
            let value = format!(
                r#"{{"id":"a","v":{}{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            );
            agree(&value).unwrap();
        }
    }

    #[test]
    fn a_verbatim_payload_is_not_touched() {
        let value = br#"{"v":{"id":9}, "ID":"a", not even JSON"#;
        let edited = Edited::new(value, PayloadFormat::Verbatim).unwrap();
        let mut out = Vec::new();
        edited.push(&mut out, &mut Stamp::default(), STAMP);
        assert_eq!((&*edited.id, &*out), ("a", &value[..]));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9f64..1e9).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let key = prop_oneof![
                "[a-c]",
                Just("id".to_owned()),
                Just("ID".to_owned()),
                Just("attributes".to_owned()),
                ".{0,3}"
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_agrees_with_a_json_library(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            agree(&text.unwrap())?;
        }

        #[test]
        fn damaged_json_agrees_with_a_json_library(value in any_json(), at: prop::sample::Index, byte in "[\\x00-\\x7f]") {
            let mut text = serde_json::to_string(&json!({"v": value, "id": "a"})).unwrap();
            let at = at.index(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                text.replace_range(at..=at, &byte);
                // A key written twice is one member to the library and two to us: not what is compared here.
                let ids = text.to_lowercase().matches("\"id\"").count() + text.matches("\\u").count();
                prop_assume!(ids <= 1);
                // The library refuses numbers past the range of a double; to us they are digits.
                let library = serde_json::from_str::<Value>(&text);
                prop_assume!(!library.is_err_and(|error| error.to_string().contains("out of range")));
                agree(&text)?;
            }
        }
    }
}
