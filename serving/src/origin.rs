//! What a derived record tells of where it comes from, in its last headers: those before them have come with its source's record.

use std::sync::Arc;

use ofa_crds::Cursor;
use ofa_crds::cursor::{self, MOVED_FROM_HEADER, SOURCE_HEADER};
use ofa_crds::kafka::header_from_end;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

/// Where the source's record stands.
#[must_use]
pub(crate) fn source(record: &BorrowedMessage<'_>) -> Option<Cursor> {
    let behind = usize::from(is_at(record, 0, MOVED_FROM_HEADER));
    let (name, value) = header_from_end(record, behind)?;
    let text = std::str::from_utf8(value?).ok()?;
    (name == SOURCE_HEADER.as_bytes()).then(|| text.parse().ok())?
}

/// The topic of the group where the asset's record before this one is, if that is another group.
#[must_use]
pub(crate) fn moved_from(record: &BorrowedMessage<'_>) -> Option<Arc<str>> {
    let (before_last, _) = header_from_end(record, 1)?;
    let topic = cursor::moved_from(before_last, header_from_end(record, 0)?)?;
    (topic != record.topic()).then(|| topic.into())
}

fn is_at(record: &BorrowedMessage<'_>, before: usize, name: &str) -> bool {
    header_from_end(record, before).is_some_and(|(found, _)| found == name.as_bytes())
}
