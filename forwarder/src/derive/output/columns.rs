//! The five columns of an event as ksqlDB's JSON reader finds them, and as its writer writes them.

use std::collections::BTreeMap;
use std::fmt;

use ofa_crds::ksql::varchar;
use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::route::Poison;

/// Names in the order in which ksqlDB writes them.
const NAMES: [&str; 5] = ["ID", "VALUE", "TAG", "TYPE", "ATTRIBUTES"];
const ATTRIBUTES: usize = 4;

/// The columns' values as they stand in the event; a missing one is null.
#[derive(Default)]
pub(super) struct Columns<'a> {
    values: [Option<&'a RawValue>; NAMES.len()],
}

impl<'a> Columns<'a> {
    /// Reads an event; what follows the object is ignored, as ksqlDB does.
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, Poison> {
        if matches!(value.trim_ascii_start().first(), Some(first) if *first != b'{') {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(value);
            return Err(json.map_or(Poison::InvalidJson, |_| Poison::NotAnObject));
        }
        let mut reader = serde_json::Deserializer::from_slice(value);
        reader
            .deserialize_map(Reader)
            .map_err(|_| Poison::InvalidJson)
    }

    /// Appends the columns with the prefix that a joined `SELECT s.*` gives them.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), Poison> {
        for (index, (name, value)) in NAMES.iter().zip(self.values).enumerate() {
            out.extend_from_slice(if index == 0 { b"{\"S_" } else { b",\"S_" });
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            if index == ATTRIBUTES {
                write_map(value, out)?;
            } else {
                varchar::write(value, out).map_err(|_| Poison::InvalidJson)?;
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// Appends a `MAP<VARCHAR, VARCHAR>`.
fn write_map(value: Option<&RawValue>, out: &mut Vec<u8>) -> Result<(), Poison> {
    let Some(json) = value.map(RawValue::get).filter(|json| *json != "null") else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(json).map_err(|_| Poison::AttributesNotAnObject)?;
    out.push(b'{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        varchar::write_text(&name, out);
        out.push(b':');
        varchar::write(Some(value), out).map_err(|_| Poison::InvalidJson)?;
    }
    out.push(b'}');
    Ok(())
}

struct Reader;

impl<'a> Visitor<'a> for Reader {
    type Value = Columns<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<Columns<'a>, M::Error> {
        let mut found = Columns::default();
        let mut exact = [false; NAMES.len()];
        while let Some(key) = members.next_key::<String>()? {
            let value: &RawValue = members.next_value().map_err(M::Error::custom)?;
            let column = NAMES
                .iter()
                .position(|name| name.eq_ignore_ascii_case(&key));
            let Some(column) = column else { continue };
            // The column's own spelling wins over any other, wherever it stands.
            let is_exact = key == NAMES[column];
            if is_exact || !exact[column] {
                found.values[column] = Some(value);
                exact[column] = is_exact;
            }
        }
        Ok(found)
    }
}
