//! Any name but the empty one, which parsers refuse, becomes one legal subject token, and is found in it again unless it had to be shortened.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ofa_crds::subject;

fuzz_target!(|name: &str| {
    if name.is_empty() {
        return;
    }
    for token in [subject::asset_token(name), subject::id_token(name)] {
        assert!(!token.is_empty() && token.len() <= subject::MAX_TOKEN_LEN);
        let illegal = |it: char| it.is_whitespace() || it.is_control() || ".*>".contains(it);
        assert!(!token.contains(illegal), "{token:?}");
    }
    let mut written = Vec::new();
    if !subject::push_asset_token(&mut written, name) {
        let token = String::from_utf8(written).unwrap();
        assert_eq!(subject::decode_token(&token).as_deref(), Some(name));
    }
    let _ = subject::decode_token(name);
});
