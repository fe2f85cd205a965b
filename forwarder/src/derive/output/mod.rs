//! The value of a derived record.
//!
//! *Clean*, the default: the source's value, byte by byte. A reader of `ofa_assets` reads a derived topic
//! with the same code, numbers stay numbers, and a ksqlDB stream declared over the topic with the columns
//! `id, value, tag, type, attributes` has the rows that an un-prefixed `CREATE STREAM ... AS SELECT` has, since
//! ksqlDB finds columns in any casing and turns scalars into text. What is no JSON object is refused.
//!
//! *ksqlDB*: what `SELECT s.*` writes, prefix `S_` included, for readers that depend on it. Refused is what
//! ksqlDB refuses; in particular text behind the object is ignored, and `attributes` must be an object.

mod columns;

use serde::de::IgnoredAny;

use crate::route::Poison;

/// How the value of a derived record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The source's value, byte by byte.
    #[value(name = "clean")]
    Clean,
    /// With the columns `S_ID`, `S_VALUE`, `S_TAG`, `S_TYPE`, `S_ATTRIBUTES`, all text.
    #[value(name = "ksqldb")]
    KsqlDb,
}

/// The value to write for a source's value; in `buffer` where it is not the same.
pub(crate) fn value<'a>(
    format: Format,
    value: &'a [u8],
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], Poison> {
    match format {
        Format::Clean => check_object(value).map(|()| value),
        Format::KsqlDb => {
            buffer.clear();
            columns::Columns::parse(value)?.write(buffer)?;
            Ok(buffer)
        }
    }
}

fn check_object(value: &[u8]) -> Result<(), Poison> {
    // Text inside of strings is not looked at by the parser below.
    std::str::from_utf8(value).map_err(|_| Poison::InvalidJson)?;
    serde_json::from_slice::<IgnoredAny>(value).map_err(|_| Poison::InvalidJson)?;
    let is_object = value.trim_ascii_start().first() == Some(&b'{');
    if is_object {
        Ok(())
    } else {
        Err(Poison::NotAnObject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &[u8]) -> Result<Vec<u8>, Poison> {
        value(Format::Clean, text, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn clean_is_the_same_bytes() {
        for text in [
            "{}",
            " {\"id\": 12.50, \"Attributes\":{}}\n",
            r#"{"a":"\u00e9☃"}"#,
        ] {
            assert_eq!(clean(text.as_bytes()), Ok(text.as_bytes().to_vec()));
        }
    }

    #[test]
    fn clean_refuses_what_no_reader_could_read() {
        for (text, poison) in [
            (&b""[..], Poison::InvalidJson),
            (b"not json", Poison::InvalidJson),
            (b"{\"a\":1} more", Poison::InvalidJson),
            (b"{\"a\":\"\xff\"}", Poison::InvalidJson),
            (b"null", Poison::NotAnObject),
            (b"[{}]", Poison::NotAnObject),
        ] {
            assert_eq!(clean(text), Err(poison), "{}", text.escape_ascii());
        }
    }
}
