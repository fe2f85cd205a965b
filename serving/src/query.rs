//! Parameters of a query string, as they stand: what a comma or a `+` means is known before decoding only.

use percent_encoding::percent_decode_str;
use thiserror::Error;

/// A query that is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the query must be percent-encoded UTF-8")]
pub struct QueryError;

/// The first value of a parameter, decoded.
///
/// # Errors
/// When it is not UTF-8.
pub fn parameter(query: Option<&str>, name: &str) -> Result<Option<String>, QueryError> {
    let value = values(query.unwrap_or_default(), name).next();
    value.map(decode).transpose()
}

/// All values of a parameter, not decoded.
pub fn values<'a>(query: &'a str, parameter: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (name, value) = pair.split_once('=')?;
        (name == parameter).then_some(value)
    })
}

/// Text as it was before it was encoded.
///
/// # Errors
/// When it is not UTF-8.
pub fn decode(text: &str) -> Result<String, QueryError> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    Ok(decoded.map_err(|_| QueryError)?.into_owned())
}
