//! An event as it goes over the wire, encoded once for all clients.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::arrivals::Arrivals;
use super::position::Position;
use super::trail::{SEPARATOR, UNKNOWN};
use crate::event::Columns;
use crate::origin;
use crate::range::Wanted;
use crate::selection::Selection;

/// Milliseconds before a client connects again: short, so that a roll of the service is hardly noticed, and
/// drawn for each client, so that they do not all come at once.
const RETRY_MS: std::ops::Range<u32> = 300..1500;

/// One event for its clients.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Where the record stands.
    pub(super) partition: u32,
    /// Where the record stands.
    pub(super) offset: u64,
    /// Whose it is.
    pub(super) asset: Arc<str>,
    /// The attribute's id.
    pub(super) id: Option<Box<str>>,
    /// The topic of the group where the asset's event before this one is, if that is another group.
    pub(super) moved_from: Option<Arc<str>>,
    bytes: Bytes,
    event_len: usize,
}

impl Frame {
    /// Encodes a record. `position` is that of the sequence after this record, where there is a sequence.
    #[must_use]
    pub(super) fn new(
        (partition, offset): (u32, u64),
        asset: Arc<str>,
        id: Option<Box<str>>,
        value: &[u8],
        position: Option<&Position>,
    ) -> Self {
        let value = String::from_utf8_lossy(value);
        let mut text = String::with_capacity(value.len() + 128);
        text.push_str("event: asset_update\n");
        // A line break within the JSON would end the field: one field for each line, as the standard has it.
        for line in value.split('\n') {
            for line in line.trim_end_matches('\r').split('\r') {
                text.push_str("data: ");
                text.push_str(line);
                text.push('\n');
            }
        }
        let event_len = text.len();
        if let Some(position) = position {
            // Writing to a String cannot fail.
            let _ = write!(text, "id: {position}\n\n");
        }
        let bytes = Bytes::from(text);
        Self {
            partition,
            offset,
            asset,
            id,
            moved_from: None,
            bytes,
            event_len,
        }
    }

    /// The same as the first one of its asset since it was in another group.
    #[must_use]
    pub(super) fn moved_from(self, topic: Option<Arc<str>>) -> Self {
        Self {
            moved_from: topic,
            ..self
        }
    }

    /// Whether a client may be given the event after what it has had: not if the asset has been in another group, and the client
    /// does not come from there.
    #[must_use]
    pub(super) fn follows(&self, arrivals: &Arrivals) -> bool {
        arrivals.take(&self.asset, self.moved_from.as_deref())
    }

    /// Whether a client of these assets is to have the event, or has to know of it: an asset arrives, whatever the attribute.
    #[must_use]
    pub(super) fn concerns(&self, selection: &Selection) -> bool {
        self.moved_from.is_some() || self.is_of(selection)
    }

    /// Whether the event is of an attribute that is asked for.
    #[must_use]
    pub(super) fn is_of(&self, selection: &Selection) -> bool {
        selection.has_id(self.id.as_deref())
    }

    /// The event with the sequence's position as id: for clients that have seen all before it.
    #[must_use]
    pub(super) fn live(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The id of a client that lacks what the asset has had in the group before: with it the client is to come back.
    #[must_use]
    pub(super) fn elsewhere(&self, position: &impl Display) -> Bytes {
        let topic = self.moved_from.as_deref().unwrap_or_default();
        Bytes::from(format!("id: {position}{SEPARATOR}{UNKNOWN}{topic}\n\n"))
    }

    /// Appends the event with another id: for a client that is catching up.
    pub(super) fn write_at(&self, position: &impl Display, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.event_len]);
        out.extend_from_slice(format!("id: {position}\n\n").as_bytes());
    }

    /// Bytes in memory.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

/// What a client that catches up asks Kafka for.
impl Wanted for Selection {
    type Item = Frame;

    fn assets(&self) -> Option<Vec<Arc<str>>> {
        Some(Selection::assets(self).cloned().collect())
    }

    fn wants_asset(&self, asset: &str) -> bool {
        self.has_asset(asset)
    }

    fn read(asset: &str, record: &BorrowedMessage<'_>) -> Option<Frame> {
        let value = record.payload()?;
        let id = Columns::parse(value).and_then(|columns| columns.id);
        let partition = u32::try_from(record.partition()).unwrap_or(0);
        let offset = u64::try_from(record.offset()).unwrap_or(0);
        let id = id.map(String::into_boxed_str);
        let at = (partition, offset);
        let frame = Frame::new(at, asset.into(), id, value, None);
        Some(frame.moved_from(origin::moved_from(record)))
    }

    fn wants(&self, frame: &Frame) -> bool {
        self.has_asset(&frame.asset) && frame.concerns(self)
    }

    fn size(frame: &Frame) -> usize {
        frame.size()
    }
}

/// The first thing a client gets: when to come back, and the id to come back with before any event.
#[must_use]
pub(super) fn hello(position: &impl Display) -> Bytes {
    let retry = rand::random_range(RETRY_MS);
    Bytes::from(format!("retry: {retry}\nid: {position}\n\n"))
}

/// Keeps the connection, and moves the id of a client on whose assets are quiet.
#[must_use]
pub(super) fn ping(position: &impl Display) -> Bytes {
    Bytes::from(format!(": ping\nid: {position}\n\n"))
}

/// Whether something written for a client has an event of an asset in it.
#[must_use]
pub(super) fn has_update(bytes: &[u8]) -> bool {
    // No line of data begins like this.
    bytes
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"event: asset_update")
}

/// Tells a client that events between its id and this position can no longer be had.
#[must_use]
pub(super) fn gap(reason: &str, position: &impl Display) -> Bytes {
    let data = json!({ "reason": reason, "resumed_at": position.to_string() });
    Bytes::from(format!("event: gap\ndata: {data}\nid: {position}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(value: &[u8]) -> String {
        let position = Position::new("t", vec![8]);
        let frame = Frame::new((0, 7), "A".into(), None, value, Some(&position));
        String::from_utf8(frame.live().to_vec()).unwrap()
    }

    #[test]
    fn the_value_is_sent_verbatim() {
        assert_eq!(
            frame(b"{\"ID\":\"x\"}"),
            "event: asset_update\ndata: {\"ID\":\"x\"}\nid: t/0/7\n\n"
        );
    }

    #[test]
    fn a_line_break_ends_no_event() {
        for value in ["{\n}", "{\r\n}", "{\r}"] {
            assert_eq!(
                frame(value.as_bytes()),
                "event: asset_update\ndata: {\ndata: }\nid: t/0/7\n\n"
            );
        }
    }

    #[test]
    fn only_the_id_differs_for_one_who_catches_up() {
        let frame = Frame::new((0, 7), "A".into(), None, b"{}", None);
        let mut out = Vec::new();
        frame.write_at(&Position::new("t", vec![8, 3]), &mut out);
        assert_eq!(out, b"event: asset_update\ndata: {}\nid: t/0/7,1/2\n\n");
    }
}
