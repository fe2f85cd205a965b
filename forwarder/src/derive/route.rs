//! The join of one record: the group it belongs to and the text that goes there. Pure.

use ofa_crds::names::asset_of_key;

use super::output::{self, Format};
use super::table::{GroupId, JoinTable};
use crate::route::{Poison, Record};

/// A record on its way to its group's topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Routed<'a> {
    pub(crate) group: GroupId,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Joins a record with the table; `None` when its asset belongs to no group. `buffer` holds the value
/// where it is not the record's own.
pub(crate) fn route<'a>(
    record: &Record<'a>,
    table: &JoinTable,
    format: Format,
    buffer: &'a mut Vec<u8>,
) -> Result<Option<Routed<'a>>, Poison> {
    let asset = asset_of_key(record.key)?;
    let Some(group) = table.group_of(asset) else {
        return Ok(None);
    };
    let value = record.value.ok_or(Poison::Tombstone)?;
    Ok(Some(Routed {
        group,
        key: asset.as_bytes(),
        value: output::value(format, value, buffer)?,
    }))
}
