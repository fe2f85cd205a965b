//! An event as it comes from NATS.

use std::str::FromStr;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use jiff::Timestamp;
use ofa_crds::cursor::MOVED_FROM_HEADER;
use ofa_crds::{Cursor, subject, wire};
use thiserror::Error;

/// One event of one asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where the event stands in Kafka. `None` when it was sent without, as upstream's forwarder does:
    /// such events can be neither deduplicated nor checked for gaps.
    pub cursor: Option<Cursor>,
    /// Offset of the asset's event before this one on the same partition, where the forwarder knew it.
    pub prev: Option<u64>,
    /// Where events are a group's: the topic of the group that the asset was in before, with its first event since.
    pub moved_from: Option<String>,
    /// The asset's UUID.
    pub asset: String,
    /// The attribute's id.
    pub id: String,
    /// JSON as OpenFactory's clients expect it, or the Kafka value where the pool's payload is `Verbatim`.
    pub payload: Bytes,
    /// When this process took it from the connection.
    pub received_at: Timestamp,
}

impl Event {
    /// Reads the payload.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parsed(&self) -> Result<wire::Event, wire::EventError> {
        wire::Event::from_json(&self.payload)
    }

    /// About the bytes of memory that it takes while it waits.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.asset.len() + self.id.len() + self.payload.len()
    }
}

#[cfg(test)]
impl Event {
    /// An event of the topic `t` and nothing else to tell of it.
    pub(crate) fn of(asset: &str, partition: u32, offset: u64) -> Self {
        let topic = "t".to_owned();
        Self {
            cursor: Some(Cursor {
                topic,
                partition,
                offset,
            }),
            prev: None,
            moved_from: None,
            asset: asset.to_owned(),
            id: "x".to_owned(),
            payload: Bytes::new(),
            received_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// A message that is no event of an asset.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The subject has not the two tokens of an event.
    #[error("'{0}' is no subject of an asset's event; somebody else publishes on this shard")]
    Subject(String),
    /// The subject holds a digest or no encoding of ours, and no header names what is meant.
    #[error(
        "nothing names the asset or attribute behind '{0}'; is the publisher one of our forwarders?"
    )]
    Name(String),
}

/// Reads subject and headers.
pub(crate) fn decode(message: Message, received_at: Timestamp) -> Result<Event, DecodeError> {
    let subject = message.subject.as_str();
    let Some((asset_token, id_token)) = subject.split_once('.') else {
        return Err(DecodeError::Subject(subject.to_owned()));
    };
    if id_token.contains('.') || asset_token == subject::CONTROL_PREFIX {
        return Err(DecodeError::Subject(subject.to_owned()));
    }
    let headers = message.headers.as_ref();
    let name = |header, token| {
        let text = header_text(headers, header).unwrap_or(token);
        subject::decode_token(text).ok_or_else(|| DecodeError::Name(subject.to_owned()))
    };
    Ok(Event {
        cursor: header_value(headers, wire::HEADER_CURSOR),
        prev: header_value(headers, wire::HEADER_PREV_OFFSET),
        moved_from: header_value(headers, MOVED_FROM_HEADER),
        asset: name(wire::HEADER_ASSET, asset_token)?,
        id: name(wire::HEADER_ID, id_token)?,
        payload: message.payload,
        received_at,
    })
}

fn header_text<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    Some(headers?.get(name)?.as_str())
}

fn header_value<T: FromStr>(headers: Option<&HeaderMap>, name: &str) -> Option<T> {
    header_text(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.insert(name, value);
        }
        Message {
            subject: subject.into(),
            reply: None,
            payload: Bytes::from_static(b"{}"),
            headers: (!headers.is_empty()).then_some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn read(subject: &str, headers: &[(&str, &str)]) -> Result<Event, DecodeError> {
        decode(message(subject, headers), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn subject_and_headers_become_an_event() {
        let event = read(
            "OKUMA%2E123456.Xpos",
            &[
                ("Nats-Msg-Id", "ofa_assets/3/1042"),
                ("Ofa-Prev-Offset", "1001"),
                ("Ofa-Moved-From", "asset_stream_Weld_topic"),
            ],
        );
        let event = event.unwrap();
        let from = event.moved_from.as_deref();
        assert_eq!(from, Some("asset_stream_Weld_topic"));
        assert_eq!(
            (event.asset.as_str(), event.id.as_str()),
            ("OKUMA.123456", "Xpos")
        );
        assert_eq!(event.cursor.unwrap().to_string(), "ofa_assets/3/1042");
        assert_eq!(event.prev, Some(1001));
    }

    #[test]
    fn names_too_long_for_a_subject_come_from_headers() {
        let (asset, id) = ("x.".repeat(600), "y ".repeat(600));
        let subject = format!(
            "{}.{}",
            subject::asset_token(&asset),
            subject::id_token(&id)
        );
        let event = read(
            &subject,
            &[
                ("Ofa-Asset-Uuid", &subject::encode_text(&asset)),
                ("Ofa-Id", &subject::encode_text(&id)),
            ],
        );
        let event = event.unwrap();
        assert_eq!((event.asset, event.id), (asset, id));
        assert_eq!(read(&subject, &[]), Err(DecodeError::Name(subject.clone())));
    }

    #[test]
    fn upstream_sends_no_headers() {
        let event = read("PROVER3018.temp", &[]).unwrap();
        assert_eq!((event.cursor, event.prev), (None, None));
    }

    #[test]
    fn other_subjects_are_no_events() {
        for subject in ["_OFA.witness", "a", "a.b.c"] {
            assert!(matches!(read(subject, &[]), Err(DecodeError::Subject(_))));
        }
    }
}
