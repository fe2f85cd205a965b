//! What a group's objects are called.
//!
//! 1. A *plain* name has only ASCII letters, digits and `_`: what upstream can express.
//! 2. Topic `asset_stream_<t>_topic` and consumer group `asset_stream_<t>_consumer_group`, where Kafka tells
//!    upper from lower case: `t` is a plain name itself. In any other name a `-` becomes `--`, and every byte
//!    that is no ASCII letter, digit or `_` becomes `-` and two upper-case hexadecimal digits. Where `t` would
//!    be longer than [`MAX_TOPIC_TOKEN`], it is `<readable>-_<digest>`. (`.` is never used: Kafka refuses a
//!    topic that differs from another in `.` and `_` only.)
//! 3. ksqlDB folds the case of stream names, Kubernetes that of Service names, so of the spellings that differ
//!    in case only one can keep upstream's name. It is the *usual* one: a run of letters that a digit follows
//!    is upper-case (`WC002`), any other has its first letter alone in upper case (`Weld`, `Halle_3`).
//! 4. Stream `asset_stream_<g>`: a plain name in its usual spelling, up to [`MAX_STREAM_TOKEN`] bytes. Any
//!    other is `asset_stream_<readable>_<digest>`, and so is a plain name that looks like one of these.
//! 5. Service `stream-api-group-<s>`: a name of letters and digits alone in its usual spelling is lower-cased
//!    as upstream does it, up to what a DNS label holds. Any other is `<readable>-<digest>`.
//! 6. `<readable>` is the beginning of the name with everything but ASCII letters and digits as `_` (`-` in a
//!    Service's name), and `<digest>` the first 120 bits of the name's SHA-256 in lower-case base 32: no two
//!    names that anybody will ever meet share it.

use sha2::{Digest, Sha256};

use super::GroupName;
use crate::names::is_topic_name;

/// Longest `t`: `asset_stream_` and `_topic` around it stay within Kafka's 249 characters.
const MAX_TOPIC_TOKEN: usize = 230;

/// Longest `g`: ksqlDB makes names of internal topics from it, with some 100 characters around it.
const MAX_STREAM_TOKEN: usize = 100;

/// Longest `s`: a DNS label has 63 characters.
const MAX_SERVICE_TOKEN: usize = 63 - SERVICE_PREFIX.len();

const SERVICE_PREFIX: &str = "stream-api-group-";

/// Digits of a digest: 120 bits at five bits each.
const DIGEST_LEN: usize = 24;

impl GroupName {
    /// Name of the stream, an identifier of ksqlDB that needs no quotes. Names of different groups differ
    /// in ksqlDB's upper case too.
    #[must_use]
    pub fn stream(&self) -> String {
        let name = self.as_str();
        let keeps = name.len() <= MAX_STREAM_TOKEN
            && name.bytes().all(is_plain)
            && is_usual_spelling(name)
            && !looks_digested(name);
        if keeps {
            return format!("asset_stream_{name}");
        }
        let readable = readable(name, '_', MAX_STREAM_TOKEN - DIGEST_LEN - 1);
        format!("asset_stream_{readable}_{}", digest(name))
    }

    /// Name of the Kafka topic with the group's events.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("asset_stream_{}_topic", self.topic_token())
    }

    /// Whether a topic is called as a group's is.
    #[must_use]
    pub fn is_topic(topic: &str) -> bool {
        let token = topic.strip_prefix("asset_stream_");
        token
            .and_then(|token| token.strip_suffix("_topic"))
            .is_some_and(|token| !token.is_empty() && is_topic_name(topic))
    }

    /// Name of the consumer group of those who serve the group.
    #[must_use]
    pub fn consumer_group(&self) -> String {
        format!("asset_stream_{}_consumer_group", self.topic_token())
    }

    /// Name of the group's Service and of the workload behind it: a DNS label.
    #[must_use]
    pub fn service(&self) -> String {
        let name = self.as_str();
        let keeps = name.len() <= MAX_SERVICE_TOKEN
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && is_usual_spelling(name);
        if keeps {
            return format!("{SERVICE_PREFIX}{}", name.to_ascii_lowercase());
        }
        let readable = readable(name, '-', MAX_SERVICE_TOKEN - DIGEST_LEN - 1).to_ascii_lowercase();
        let readable = readable.trim_matches('-');
        let separator = if readable.is_empty() { "x-" } else { "-" };
        format!("{SERVICE_PREFIX}{readable}{separator}{}", digest(name))
    }

    fn topic_token(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let name = self.as_str();
        let mut token = String::with_capacity(name.len());
        for byte in name.bytes() {
            match byte {
                b'-' => token.push_str("--"),
                plain if is_plain(plain) => token.push(char::from(plain)),
                other => {
                    token.push('-');
                    token.push(char::from(DIGITS[usize::from(other >> 4)]));
                    token.push(char::from(DIGITS[usize::from(other & 0xf)]));
                }
            }
        }
        if token.len() > MAX_TOPIC_TOKEN {
            let readable = readable(name, '_', MAX_TOPIC_TOKEN - DIGEST_LEN - 2);
            token = format!("{readable}-_{}", digest(name));
        }
        token
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Rule 3. For each set of spellings that differ in ASCII case only, this is true for exactly one.
fn is_usual_spelling(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let run = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphabetic())
            .count();
        let numbered = rest.get(run).is_some_and(u8::is_ascii_digit);
        let usual = rest[..run]
            .iter()
            .enumerate()
            .all(|(index, letter)| letter.is_ascii_uppercase() == (numbered || index == 0));
        if !usual {
            return false;
        }
        at += run.max(1);
    }
    true
}

/// Whether a plain name ends as rule 4's other names do.
fn looks_digested(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'2'..=b'7');
    name.rsplit_once('_')
        .is_some_and(|(_, end)| end.len() == DIGEST_LEN && end.bytes().all(is_digit))
}

fn readable(name: &str, filler: char, max: usize) -> String {
    let fill = |c: char| if c.is_ascii_alphanumeric() { c } else { filler };
    name.chars().take(max).map(fill).collect()
}

fn digest(name: &str) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = Sha256::digest(name.as_bytes());
    let bit = |index: usize| usize::from(hash[index / 8] >> (7 - index % 8) & 1);
    let digit = |index: usize| (0..5).fold(0, |digit, at| digit << 1 | bit(index * 5 + at));
    (0..DIGEST_LEN)
        .map(|index| char::from(DIGITS[digit(index)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> GroupName {
        text.parse().unwrap()
    }

    /// The four names as the systems that hold them tell them apart.
    fn folded(group: &GroupName) -> [String; 4] {
        let (stream, service) = (group.stream(), group.service());
        [
            stream.to_ascii_uppercase(),
            group.topic(),
            group.consumer_group(),
            service.to_ascii_lowercase(),
        ]
    }

    #[test]
    fn names_for_examples() {
        let mut text = String::new();
        let long = "x".repeat(200);
        let names = [
            "Weld",
            "weld",
            "WELD",
            "WC002",
            "Halle_3",
            "WC-1",
            "Halle 3/Süd",
            "'; DROP STREAM x; --",
            "a.b",
            "a_b",
            "_",
            "-",
            "日本",
            &long,
        ];
        for text_of in names {
            let group = name(text_of);
            let names = [
                group.stream(),
                group.topic(),
                group.consumer_group(),
                group.service(),
            ];
            text += &format!("{text_of}\n  {}\n", names.join("\n  "));
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_upstream_can_express_keeps_its_names() {
        for text in ["Weld", "Cut", "Paint", "WC002", "Machining", "M1", "42"] {
            let group = name(text);
            assert_eq!(group.stream(), format!("asset_stream_{text}"));
            assert_eq!(
                group.service(),
                format!("stream-api-group-{}", text.to_lowercase())
            );
        }
        for text in ["weld", "OpenFactory", "a_B", "_x_"] {
            assert_eq!(name(text).topic(), format!("asset_stream_{text}_topic"));
            assert!(GroupName::is_topic(&name(text).topic()));
            let consumer_group = format!("asset_stream_{text}_consumer_group");
            assert_eq!(name(text).consumer_group(), consumer_group);
        }
    }

    #[test]
    fn a_name_cannot_imitate_the_digest_of_another() {
        let weld = name("weld");
        let imitation = weld.stream().trim_start_matches("asset_stream_").to_owned();
        for imitation in [imitation.to_uppercase(), imitation] {
            let other = name(&imitation);
            assert_ne!(other.stream().to_uppercase(), weld.stream().to_uppercase());
        }
        let imitation = weld.service().trim_start_matches(SERVICE_PREFIX).to_owned();
        assert_ne!(name(&imitation).service(), weld.service());
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[aA1_ -]{1,4}",
            "[a-cA-C0-9_./-]{1,8}",
            "\\PC{1,12}",
            "[aA-]{90,260}",
            ".{1,300}"
        ]
    }

    proptest! {
        #[test]
        fn every_name_is_legal(text in any_name()) {
            let group = name(&text);
            let stream = group.stream();
            prop_assert!(stream.bytes().all(is_plain) && stream.len() <= 13 + MAX_STREAM_TOKEN);
            let topic = group.topic();
            prop_assert!(topic.bytes().all(|b| is_plain(b) || b == b'-') && topic.len() <= 249);
            let service = group.service();
            let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            prop_assert!(service.bytes().all(label) && service.len() <= 63, "{}", service);
            prop_assert!(!service.ends_with('-'));
        }

        #[test]
        fn groups_never_share_a_name(names in proptest::collection::hash_set(any_name(), 2..40)) {
            let mut seen: [HashMap<String, String>; 4] = Default::default();
            for text in names {
                for (seen, mapped) in seen.iter_mut().zip(folded(&name(&text))) {
                    let before = seen.insert(mapped, text.clone());
                    prop_assert_eq!(before, None, "shared with {}", &text);
                }
            }
        }

        #[test]
        fn one_spelling_alone_is_usual(text in "[a-zA-Z0-9_]{1,7}") {
            let letters: Vec<usize> = text.bytes().enumerate()
                .filter(|(_, b)| b.is_ascii_alphabetic()).map(|(at, _)| at).collect();
            let usual = (0u32..1 << letters.len()).filter(|upper| {
                let mut bytes = text.to_ascii_lowercase().into_bytes();
                for (bit, &at) in letters.iter().enumerate() {
                    if upper >> bit & 1 == 1 {
                        bytes[at].make_ascii_uppercase();
                    }
                }
                is_usual_spelling(std::str::from_utf8(&bytes).unwrap())
            });
            prop_assert_eq!(usual.count(), 1);
        }
    }
}
