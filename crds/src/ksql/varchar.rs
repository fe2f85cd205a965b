//! A JSON value as ksqlDB's `VARCHAR` has it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Appends a value as JSON text or null.
///
/// # Errors
/// When the value is no JSON.
pub fn write(value: Option<&RawValue>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let Some(json) = value.map(RawValue::get) else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    match json.as_bytes() {
        // A text stays as it is written, and null is no text.
        [b'"', ..] | b"null" => out.extend_from_slice(json.as_bytes()),
        _ => write_text(&text(json)?, out),
    }
    Ok(())
}

/// Appends a text as JSON.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// The text that ksqlDB makes of a value: Java's of numbers, compact JSON of objects, and of arrays their
/// elements' texts in brackets.
///
/// # Errors
/// When the value is no JSON.
pub fn text(json: &str) -> serde_json::Result<String> {
    match json.bytes().next().unwrap_or_default() {
        b'"' => serde_json::from_str(json),
        b'{' => {
            let mut out = String::new();
            push_compact(json, &mut out)?;
            Ok(out)
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(json)?;
            let texts: serde_json::Result<Vec<_>> = elements
                .into_iter()
                .map(|element| text(element.get()))
                .collect();
            Ok(format!("[{}]", texts?.join(", ")))
        }
        b'-' | b'0'..=b'9' => Ok(decimal(json)),
        _ => Ok(json.to_owned()),
    }
}

/// Appends JSON without white space, members by name.
fn push_compact(json: &str, out: &mut String) -> serde_json::Result<()> {
    match json.bytes().next().unwrap_or_default() {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
            push_list(out, ['{', '}'], members, |out, (name, value)| {
                out.push_str(&serde_json::to_string(&name)?);
                out.push(':');
                push_compact(value.get(), out)
            })
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(json)?;
            push_list(out, ['[', ']'], elements, |out, value| {
                push_compact(value.get(), out)
            })
        }
        b'-' | b'0'..=b'9' => {
            out.push_str(&decimal(json));
            Ok(())
        }
        _ => {
            out.push_str(json);
            Ok(())
        }
    }
}

fn push_list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    push: impl Fn(&mut String, T) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item)?;
    }
    out.push(close);
    Ok(())
}

/// A JSON number as Java's `BigDecimal.toString` writes it: all digits kept, an exponent only where the
/// number is written with a positive one or is below 1e-6.
fn decimal(number: &str) -> String {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let digits = if significant.is_empty() {
        "0"
    } else {
        significant
    };
    // Java reads exponents of 32 bits; larger ones cannot occur in what it has accepted.
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let scale = length(fraction) - exponent;
    let adjusted = length(digits) - 1 - scale;
    let text = if scale == 0 {
        digits.to_owned()
    } else if scale > 0 && adjusted >= -6 {
        plain(digits, usize::try_from(scale).unwrap_or(usize::MAX))
    } else {
        scientific(digits, adjusted)
    };
    // There is no negative zero.
    let sign = if negative && !significant.is_empty() {
        "-"
    } else {
        ""
    };
    format!("{sign}{text}")
}

fn plain(digits: &str, scale: usize) -> String {
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{whole}.{fraction}")
}

fn scientific(digits: &str, adjusted: i64) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{first}{point}{rest}E{adjusted:+}")
}

fn length(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        for (json, java) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("12.50", "12.50"),
            ("1e21", "1E+21"),
            ("0.00001", "0.00001"),
            ("100000000.0", "100000000.0"),
            ("0.0000001", "1E-7"),
            ("1.25e-7", "1.25E-7"),
            ("-1.5e3", "-1.5E+3"),
            ("1500e-2", "15.00"),
            ("0e3", "0E+3"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("15e-1", "1.5"),
        ] {
            assert_eq!(decimal(json), java, "{json}");
        }
    }

    #[test]
    fn structures_become_text() {
        assert_eq!(
            text(r#"[1, "x" ,[true,null]]"#).unwrap(),
            "[1, x, [true, null]]"
        );
        assert_eq!(
            text(r#"{"b": [1, "x"], "a": 2.50}"#).unwrap(),
            r#"{"a":2.50,"b":[1,"x"]}"#
        );
    }
}
