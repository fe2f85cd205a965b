//! The join of one record: the group it belongs to and the text that goes there. Pure.

use ofa_crds::names::asset_of_key;

use super::output::{self, Format};
use super::table::{GroupId, JoinTable, Placement};
use crate::route::{Poison, Record};

/// What the join makes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined<'a> {
    /// It goes to its asset's group.
    To(Routed<'a>),
    /// Its asset belongs to no group.
    Nowhere,
    /// Its asset is not in the table: it belongs to no group if the table is as new as the record.
    Unknown,
}

/// A record on its way to its group's topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Routed<'a> {
    pub(crate) group: GroupId,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Joins a record with the table. `buffer` holds the value where it is not the record's own.
pub(crate) fn route<'a>(
    record: &Record<'a>,
    table: &JoinTable,
    format: Format,
    buffer: &'a mut Vec<u8>,
) -> Result<Joined<'a>, Poison> {
    let asset = asset_of_key(record.key)?;
    let group = match table.placement(asset) {
        Placement::In(group) => group,
        Placement::Nowhere => return Ok(Joined::Nowhere),
        Placement::Unknown => return Ok(Joined::Unknown),
    };
    let value = record.value.ok_or(Poison::Tombstone)?;
    Ok(Joined::To(Routed {
        group,
        key: asset.as_bytes(),
        value: output::value(format, value, buffer)?,
    }))
}
