//! A cursor that is read is written as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ofa_crds::Cursor;

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
    }
});
