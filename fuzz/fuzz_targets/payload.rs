//! The editor of payloads agrees with serde_json on what is JSON, and what it writes is JSON without the id.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ofa_crds::payload::{Edited, PayloadError, PayloadFormat, Stamp, Timestamp, TimestampKind};
use serde_json::Value;

fuzz_target!(|value: &[u8]| {
    let edited = Edited::new(value, PayloadFormat::OpenFactory);
    match (&edited, serde_json::from_slice::<Value>(value)) {
        (Ok(edited), Ok(Value::Object(before))) => {
            let mut out = Vec::new();
            let timestamp = Timestamp {
                ms: 0,
                kind: TimestampKind::Producer,
            };
            edited.push(&mut out, &mut Stamp::default(), timestamp);
            let after: Value = serde_json::from_slice(&out).unwrap();
            let after = after.as_object().unwrap();
            let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
            assert!(after.keys().any(|name| is(name, "attributes")));
            for (name, value) in &before {
                if !is(name, "id") && !is(name, "attributes") {
                    assert_eq!(after.get(name), Some(value));
                }
            }
        }
        (Ok(_) | Err(PayloadError::MissingId), Ok(other)) => assert!(other.is_object()),
        (Err(PayloadError::NotAnObject), Ok(other)) => assert!(!other.is_object()),
        (Err(PayloadError::InvalidJson), Ok(_)) => panic!("serde_json reads it"),
        // serde_json gives up at a depth of 128, at numbers that no double can hold, and at halves of characters, which JSON's
        // grammar allows.
        (_, Err(error)) => {
            let limits = ["recursion limit", "number out of range", "hex escape"];
            let limited = limits.iter().any(|limit| error.to_string().contains(limit));
            assert!(edited.is_err() || limited, "{error}");
        }
    }
});
