//! The one rule that turns an asset's UUID and an attribute's id into a NATS subject.
//!
//! `subject = token(uuid) "." token(id)`; a client watches an asset with `token(uuid) ".*"`.
//!
//! 1. A token keeps every character that NATS allows in one, case included, so that the names
//!    OpenFactory uses today come out unchanged.
//! 2. `.`, `*`, `>`, `%`, white space and control characters are written as `%` and two upper-case
//!    hexadecimal digits for each of their UTF-8 bytes (`OKUMA.123456` becomes `OKUMA%2E123456`).
//! 3. A first `$` or `_` of a UUID is written the same way: NATS keeps `$SYS`, `$JS` and `_INBOX`
//!    for itself, and this project `_OFA`.
//! 4. A token that would be longer than [`MAX_TOKEN_LEN`] becomes `%%` and the SHA-256 of the text
//!    in 64 upper-case hexadecimal digits; the text itself then travels in a header ([`crate::wire`]).
//! 5. An empty text has no token: an empty key or id is refused by its parser.
//!
//! The rule is injective, so two assets never share a subject.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Longest token in bytes. Two tokens, a dot and the rest of a `HPUB` line stay well inside
/// nats-server's default `max_control_line` of 4096 bytes.
pub const MAX_TOKEN_LEN: usize = 512;

/// Prefix of the subjects that this project's own control messages use. No asset can reach it (rule 3).
pub const CONTROL_PREFIX: &str = "_OFA";

/// The subject on which a pool's forwarders tell clients of a shard of a new shard map
/// ([`MapNotice`](crate::shard_map::MapNotice)). Three tokens, so that who watches every event (`*.*`) does not get it.
#[must_use]
pub fn map_notice(pool: &str) -> String {
    format!("{CONTROL_PREFIX}.map.{}", token_text(pool, Position::Later))
}

/// What a client of any pool subscribes to for [`map_notice`].
pub const MAP_NOTICES: &str = "_OFA.map.*";

/// Which of the two tokens is written: only the first of a subject meets NATS' reserved names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    First,
    Later,
}

/// Appends the token of an asset's UUID. Returns whether rule 4 shortened it.
pub fn push_asset_token(out: &mut Vec<u8>, uuid: &str) -> bool {
    push_token(out, uuid, Position::First)
}

/// Appends the token of an attribute's id. Returns whether rule 4 shortened it.
pub fn push_id_token(out: &mut Vec<u8>, id: &str) -> bool {
    push_token(out, id, Position::Later)
}

/// The token of an asset's UUID.
#[must_use]
pub fn asset_token(uuid: &str) -> String {
    token_text(uuid, Position::First)
}

/// The token of an attribute's id.
#[must_use]
pub fn id_token(id: &str) -> String {
    token_text(id, Position::Later)
}

/// The subject on which a client watches all attributes of an asset.
#[must_use]
pub fn asset_wildcard(uuid: &str) -> String {
    format!("{}.*", asset_token(uuid))
}

/// The text behind a token; `None` when the token is not one of ours or was shortened by rule 4.
#[must_use]
pub fn decode_token(token: &str) -> Option<String> {
    if !token.contains('%') {
        return Some(token.to_owned());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Text made safe for a header value by rule 2 alone, however long.
#[must_use]
pub fn encode_text(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 8);
    push_encoded(&mut out, text, Position::Later);
    into_text(out)
}

const fn is_plain(byte: u8) -> bool {
    byte > b' ' && byte < 0x7f && !matches!(byte, b'.' | b'*' | b'>' | b'%')
}

/// [`is_plain`] of every byte: it is asked for each letter of each record's names.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = u8::MIN;
    while byte < u8::MAX {
        plain[byte as usize] = is_plain(byte);
        byte += 1;
    }
    plain
};

fn is_reserved_first(text: &str, position: Position) -> bool {
    position == Position::First && text.starts_with(['$', '_'])
}

fn push_token(out: &mut Vec<u8>, text: &str, position: Position) -> bool {
    let plain = text.len() <= MAX_TOKEN_LEN
        && text.bytes().all(|byte| PLAIN[usize::from(byte)])
        && !is_reserved_first(text, position);
    if plain {
        out.extend_from_slice(text.as_bytes());
        return false;
    }
    let start = out.len();
    push_encoded(out, text, position);
    let too_long = out.len() - start > MAX_TOKEN_LEN;
    if too_long {
        out.truncate(start);
        push_digest(out, text);
    }
    too_long
}

fn push_encoded(out: &mut Vec<u8>, text: &str, position: Position) {
    for (index, c) in text.char_indices() {
        let reserved = index == 0 && is_reserved_first(text, position);
        let illegal = matches!(c, '.' | '*' | '>' | '%') || c.is_whitespace() || c.is_control();
        let mut utf8 = [0; 4];
        for &byte in c.encode_utf8(&mut utf8).as_bytes() {
            if reserved || illegal {
                out.push(b'%');
                push_hex(out, byte);
            } else {
                out.push(byte);
            }
        }
    }
}

fn push_digest(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"%%");
    for byte in Sha256::digest(text.as_bytes()) {
        push_hex(out, byte);
    }
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 0xf)]);
}

fn token_text(text: &str, position: Position) -> String {
    let mut out = Vec::with_capacity(text.len());
    push_token(&mut out, text, position);
    into_text(out)
}

/// Encoding only copies whole characters or writes ASCII, so the bytes are UTF-8 again.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut hex = String::new();
        for byte in error.into_bytes() {
            let _ = write!(hex, "%{byte:02X}");
        }
        hex
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_are_kept_letter_by_letter() {
        for name in [
            "PROVER3018",
            "WTVB01-001",
            "cnc_7",
            "Temp",
            "Müller-3",
            "a$b",
            "{x}",
        ] {
            assert_eq!(asset_token(name), name);
        }
    }

    #[test]
    fn notices_of_any_pool_are_subscribed_to_together() {
        for pool in ["factory", "a.b", "*"] {
            let subject = map_notice(pool);
            let token = subject.strip_prefix(MAP_NOTICES.strip_suffix('*').unwrap());
            assert!(!token.unwrap().contains(['.', '*']), "{subject}");
        }
        assert!(MAP_NOTICES.starts_with(CONTROL_PREFIX));
    }

    #[test]
    fn a_dot_is_encoded() {
        assert_eq!(asset_token("OKUMA.123456"), "OKUMA%2E123456");
        assert_eq!(asset_wildcard("OKUMA.123456"), "OKUMA%2E123456.*");
    }

    #[test]
    fn white_space_is_encoded() {
        assert_eq!(
            asset_token("a b\tc\u{a0}d\u{3000}"),
            "a%20b%09c%C2%A0d%E3%80%80"
        );
    }

    #[test]
    fn wildcards_are_encoded() {
        assert_eq!(asset_token("*"), "%2A");
        assert_eq!(id_token(">"), "%3E");
    }

    #[test]
    fn control_characters_are_encoded() {
        assert_eq!(
            asset_token("x\r\nPUB y\0\u{7f}\u{85}"),
            "x%0D%0APUB%20y%00%7F%C2%85"
        );
    }

    #[test]
    fn the_escape_itself_is_encoded() {
        assert_eq!(asset_token("50%"), "50%25");
        assert_ne!(asset_token("a%2Eb"), asset_token("a.b"));
    }

    #[test]
    fn names_kept_by_nats_are_out_of_reach_for_assets() {
        assert_eq!(asset_token("$SYS"), "%24SYS");
        assert_eq!(asset_token("_INBOX"), "%5FINBOX");
        assert_eq!(asset_token("_OFA"), "%5FOFA");
        assert_eq!(id_token("_id"), "_id");
    }

    #[test]
    fn a_name_longer_than_a_token_is_shortened_to_its_digest() {
        let long = "x".repeat(MAX_TOKEN_LEN + 1);
        let token = asset_token(&long);
        assert!(token.starts_with("%%") && token.len() == 66, "{token}");
        assert_eq!(decode_token(&token), None);
        assert_eq!(asset_token(&"x".repeat(MAX_TOKEN_LEN)).len(), MAX_TOKEN_LEN);
        assert!(asset_token(&".".repeat(200)).starts_with("%%"));
    }

    proptest! {
        #[test]
        fn every_token_is_legal_and_decodes_to_its_text(text in "\\PC{1,40}|[\\x00-\\x7f]{1,40}") {
            let token = asset_token(&text);
            prop_assert!(!token.is_empty());
            prop_assert!(!token.contains(['.', '*', '>']));
            prop_assert!(!token.chars().any(|c| c.is_whitespace() || c.is_control()));
            prop_assert!(!token.starts_with(['$', '_']));
            prop_assert_eq!(decode_token(&token), Some(text));
        }

        #[test]
        fn two_texts_never_share_a_token(a in ".{1,12}", b in ".{1,12}") {
            prop_assert_eq!(a == b, asset_token(&a) == asset_token(&b));
        }
    }
}
