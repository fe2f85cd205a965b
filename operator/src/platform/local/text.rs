//! What containers get from their surroundings, done to the text of arguments, variables and files:
//! `$(NAME)`, host names of services, and paths of mounted files.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by the variable's value and `$$(` by `$(`, as Kubernetes does: what names no
/// variable stays as it is.
#[must_use]
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = tail
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match reference.and_then(|(name, after)| Some((variables.get(name)?, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = tail;
            }
        }
    }
    out + rest
}

/// Replaces host names: those followed by a port, and those of a URL. `resolve` gets the name and the
/// port and answers with what to write in place of both.
#[must_use]
pub fn replace_hosts(
    text: &str,
    resolve: impl Fn(&str, Option<u16>) -> Option<(String, Option<u16>)>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut position = 0;
    while position < text.len() {
        let run = run_of(&text[position..], is_host_byte);
        if run == 0 {
            let width = text[position..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&text[position..position + width]);
            position += width;
            continue;
        }
        let (name, end) = (&text[position..position + run], position + run);
        let port_digits = text[end..]
            .strip_prefix(':')
            .map_or(0, |tail| run_of(tail, |b| b.is_ascii_digit()));
        let port = text[end..]
            .get(1..=port_digits)
            .and_then(|digits| digits.parse().ok());
        let in_url = text[..position].ends_with("://") || text[..position].ends_with('@');
        let found = (port.is_some() || in_url)
            .then(|| resolve(name, port))
            .flatten();
        match found {
            Some((host, port)) => {
                out.push_str(&host);
                if let Some(port) = port {
                    out.push_str(&format!(":{port}"));
                }
                position = if port_digits > 0 {
                    end + 1 + port_digits
                } else {
                    end
                };
            }
            None => {
                out.push_str(name);
                position = end;
            }
        }
    }
    out
}

/// Replaces absolute paths for which `rewrite` has another.
#[must_use]
pub fn replace_paths(text: &str, rewrite: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut position = 0;
    while let Some(at) = text[position..].find('/').map(|at| at + position) {
        out.push_str(&text[position..at]);
        let before = text[..at].bytes().next_back();
        let run = run_of(&text[at..], is_path_byte);
        let in_url = before == Some(b':') && text[at..].starts_with("//");
        let path = &text[at..at + run];
        let starts_here = !in_url && !before.is_some_and(is_path_byte);
        match starts_here.then(|| rewrite(path)).flatten() {
            Some(replaced) => out.push_str(&replaced),
            None => out.push_str(path),
        }
        position = at + run;
    }
    out + &text[position..]
}

fn run_of(text: &str, wanted: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|&byte| wanted(byte)).count()
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b'+' | b'%')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> BTreeMap<String, String> {
        BTreeMap::from([("POD_IP".to_owned(), "127.64.0.1".to_owned())])
    }

    #[test]
    fn variables_expand_as_in_kubernetes() {
        assert_eq!(
            expand("PLAINTEXT://$(POD_IP):9092", &variables()),
            "PLAINTEXT://127.64.0.1:9092"
        );
        assert_eq!(
            expand("$(OTHER) $$(POD_IP) $x $", &variables()),
            "$(OTHER) $(POD_IP) $x $"
        );
        assert_eq!(expand("$(POD_IP", &variables()), "$(POD_IP");
    }

    #[test]
    fn names_of_services_become_addresses() {
        let resolve = |name: &str, port: Option<u16>| {
            (name == "kafka").then(|| ("127.64.0.9".to_owned(), port))
        };
        assert_eq!(
            replace_hosts("kafka:9092,other:9092", resolve),
            "127.64.0.9:9092,other:9092"
        );
        assert_eq!(
            replace_hosts("nats://u:p@kafka:4222", resolve),
            "nats://u:p@127.64.0.9:4222"
        );
        assert_eq!(
            replace_hosts("http://kafka/x", resolve),
            "http://127.64.0.9/x"
        );
        assert_eq!(
            replace_hosts("kafka is a word, my.kafka:1 not", resolve),
            "kafka is a word, my.kafka:1 not"
        );
    }

    #[test]
    fn paths_of_mounted_files_move() {
        let rewrite = |path: &str| {
            path.starts_with("/etc/nats")
                .then(|| format!("/state{path}"))
        };
        assert_eq!(
            replace_paths("--config=/etc/nats/n.conf", rewrite),
            "--config=/state/etc/nats/n.conf"
        );
        assert_eq!(
            replace_paths("http://etc/nats x/etc/nats", rewrite),
            "http://etc/nats x/etc/nats"
        );
        assert_eq!(
            replace_paths("cert: \"/etc/nats/a\", k: \"/usr/b\"", rewrite),
            "cert: \"/state/etc/nats/a\", k: \"/usr/b\""
        );
    }

    proptest! {
        #[test]
        fn text_without_a_match_stays_as_it_is(text in ".{0,80}") {
            prop_assert_eq!(&replace_hosts(&text, |_, _| None), &text);
            prop_assert_eq!(&replace_paths(&text, |_| None), &text);
        }
    }
}
