//! What a derived record tells of where it comes from, in the headers behind those of its source.

use std::sync::Arc;

use ofa_crds::cursor::{MOVED_FROM_HEADER, SOURCE_HEADER};
use ofa_crds::{Cursor, GroupName};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _};

/// Where the source's record stands.
#[must_use]
pub(crate) fn source(record: &BorrowedMessage<'_>) -> Option<Cursor> {
    let headers = record.headers()?;
    let source = headers.get(own(headers)?);
    std::str::from_utf8(source.value?).ok()?.parse().ok()
}

/// The topic of the group where the asset's record before this one is, if that is another group.
#[must_use]
pub(crate) fn moved_from(record: &BorrowedMessage<'_>) -> Option<Arc<str>> {
    let headers = record.headers()?;
    let header = headers.try_get(own(headers)? + 1)?;
    let topic = std::str::from_utf8(header.value?).ok()?;
    (header.key == MOVED_FROM_HEADER && GroupName::is_topic(topic)).then(|| topic.into())
}

/// The place of the first header of our own. It is the last of its name: those before it have come with the source's record.
fn own(headers: &BorrowedHeaders) -> Option<usize> {
    let mut places = (0..headers.count()).rev();
    places.find(|at| headers.get(*at).key == SOURCE_HEADER)
}
