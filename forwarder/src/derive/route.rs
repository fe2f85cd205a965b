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
    /// The group whose topic has the asset's last record, where that is known.
    pub(crate) last: Option<GroupId>,
    pub(crate) asset: &'a str,
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
    let (group, last) = match table.placement(asset) {
        (Placement::In(group), last) => (group, last),
        (Placement::Nowhere, _) => return Ok(Joined::Nowhere),
        (Placement::Unknown, _) => return Ok(Joined::Unknown),
    };
    let value = record.value.ok_or(Poison::Tombstone)?;
    Ok(Joined::To(Routed {
        group,
        last,
        asset,
        value: output::value(format, value, buffer)?,
    }))
}
