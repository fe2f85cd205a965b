//! Statements as ksqlDB tells them, compared with those it was asked for.
//!
//! ksqlDB writes a statement anew: names in upper case, properties completed, parentheses added. So what is compared is
//! what a statement says: its topic and the properties that were stated, and the words of its query.

use std::collections::BTreeMap;

/// What a `CREATE STREAM ... AS SELECT` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// The properties in `WITH (...)`, names in upper case, values as they stand.
    pub(super) properties: BTreeMap<String, String>,
    /// The words of the query, without those that mean nothing.
    query: Vec<String>,
}

/// Words that ksqlDB adds or leaves out as it likes.
const MEANINGLESS: [&str; 8] = ["AS", "INNER", "EMIT", "CHANGES", "(", ")", ";", "STREAM"];

impl Statement {
    /// Reads a statement; `None` when it makes no stream from a query.
    #[must_use]
    pub(super) fn read(text: &str) -> Option<Self> {
        let words = words(text);
        let select = words.iter().position(|word| word == "SELECT")?;
        let query = words[select..].iter();
        Some(Self {
            properties: properties(&words[..select]),
            query: query
                .filter(|word| !MEANINGLESS.contains(&word.as_str()))
                .cloned()
                .collect(),
        })
    }

    /// What the running statement says differently, for people; `None` when it says what this one asks for.
    #[must_use]
    pub(super) fn differs_from(&self, running: &Self) -> Option<String> {
        for (name, wanted) in &self.properties {
            // A format that is not told is the server's default, and the topic's records are what they are.
            let Some(found) = running.properties.get(name) else {
                if name == "VALUE_FORMAT" {
                    continue;
                }
                return Some(format!("{name} is not set"));
            };
            if found != wanted {
                return Some(format!("{name} is {found} and not {wanted}"));
            }
        }
        if self.query == running.query {
            return None;
        }
        let position = self
            .query
            .iter()
            .zip(&running.query)
            .position(|(a, b)| a != b);
        let at = position.unwrap_or(self.query.len().min(running.query.len()));
        let around = |words: &[String]| {
            let end = words.len().min(at + 3);
            words[at.min(end)..end].join(" ")
        };
        Some(format!(
            "its query says '{}' where '{}' is wanted",
            around(&running.query),
            around(&self.query)
        ))
    }
}

/// Whether a statement's query names something.
#[must_use]
pub(super) fn mentions(statement: &str, name: &str) -> bool {
    let words = words(statement);
    let select = words.iter().position(|word| word == "SELECT");
    words[select.unwrap_or(0)..].iter().any(|word| word == name)
}

fn properties(words: &[String]) -> BTreeMap<String, String> {
    let values = words.windows(3).filter(|three| three[1] == "=");
    values
        .map(|three| (three[0].clone(), three[2].clone()))
        .collect()
}

/// Names in upper case unless quoted, text with its quotes, every other character by itself.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '\'' | '`' => quoted(rest, first),
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Some(rest[..end].to_ascii_uppercase()), &rest[end..])
            }
            c if c.is_whitespace() => (None, &rest[c.len_utf8()..]),
            c => (Some(c.to_string()), &rest[c.len_utf8()..]),
        };
        words.extend(word);
        rest = after;
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Quoted text up to its end; a doubled quote stands for one. Quotes of a name mean nothing, those of a value do.
fn quoted(text: &str, quote: char) -> (Option<String>, &str) {
    let mut content = String::new();
    let mut rest = &text[1..];
    while let Some(end) = rest.find(quote) {
        content.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(after) => {
                content.push(quote);
                rest = after;
            }
            None => break,
        }
    }
    let word = if quote == '\'' {
        format!("'{content}'")
    } else {
        content
    };
    (Some(word), rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sql::create_stream;
    use super::super::tests::wanted;
    use super::*;

    /// As a server told the statement of `create_stream`.
    fn told(name: &str, topic: &str, value: &str) -> String {
        format!(
            "CREATE STREAM {name} WITH (CLEANUP_POLICY='delete', KAFKA_TOPIC='{topic}', PARTITIONS=3, REPLICAS=1, RETENTION_MS=604800000, VALUE_FORMAT='JSON') AS SELECT\n  \
             S.ASSET_UUID ASSET_UUID,\n  S.ID ID,\n  S.VALUE VALUE,\n  S.TAG TAG,\n  S.TYPE TYPE,\n  S.ATTRIBUTES ATTRIBUTES\nFROM ASSETS_STREAM S\n\
             INNER JOIN ASSET_TO_UNS_MAP H ON ((S.ASSET_UUID = H.ASSET_UUID))\nWHERE (H.UNS_LEVELS['workcenter'] = {value})\nEMIT CHANGES;"
        )
    }

    fn compare(value: &str, running: &str) -> Option<String> {
        let asked = Statement::read(&create_stream(&wanted(value))).unwrap();
        asked.differs_from(&Statement::read(running).unwrap())
    }

    #[test]
    fn what_the_server_tells_is_what_was_asked_for() {
        let running = told("ASSET_STREAM_WELD", "asset_stream_Weld_topic", "'Weld'");
        assert_eq!(compare("Weld", &running), None);
    }

    #[test]
    fn what_differs_is_named() {
        let topic = told("ASSET_STREAM_WELD", "ASSET_STREAM_WELD", "'Weld'");
        assert_eq!(
            compare("Weld", &topic).unwrap(),
            "KAFKA_TOPIC is 'ASSET_STREAM_WELD' and not 'asset_stream_Weld_topic'"
        );
        let value = told("ASSET_STREAM_WELD", "asset_stream_Weld_topic", "'weld'");
        assert_eq!(
            compare("Weld", &value).unwrap(),
            "its query says ''weld'' where ''Weld'' is wanted"
        );
        let upstream = "CREATE STREAM ASSET_STREAM_WELD WITH (KAFKA_TOPIC='asset_stream_Weld_topic') AS SELECT S.*\nFROM A S";
        assert!(
            compare("Weld", upstream)
                .unwrap()
                .starts_with("its query says '*")
        );
    }

    #[test]
    fn stated_properties_count_and_others_do_not() {
        let mut wanted = wanted("Weld");
        wanted.partitions = Some(6);
        let asked = Statement::read(&create_stream(&wanted)).unwrap();
        let running = told("ASSET_STREAM_WELD", "asset_stream_Weld_topic", "'Weld'");
        let running = Statement::read(&running).unwrap();
        assert_eq!(
            asked.differs_from(&running).unwrap(),
            "PARTITIONS is 3 and not 6"
        );
    }

    #[test]
    fn a_stream_without_query_is_none() {
        assert_eq!(
            Statement::read("CREATE STREAM A (ID STRING) WITH (KAFKA_TOPIC='a');"),
            None
        );
    }

    proptest! {
        /// Whatever a group is called, its statement says that name and nothing else differs.
        #[test]
        fn a_name_is_never_more_than_a_value(value in "\\PC{1,40}|['`$;{}() -]{1,12}", other in "\\PC{1,40}") {
            let asked = Statement::read(&create_stream(&wanted(&value))).unwrap();
            let usual = Statement::read(&create_stream(&wanted("x"))).unwrap();
            let fixed = usual.query.len() - 1;
            prop_assert_eq!(&asked.query[..fixed], &usual.query[..fixed]);
            let rest = asked.query[fixed..].concat();
            prop_assert!(value.contains("${") || rest == format!("'{value}'"), "{}", rest);
            prop_assert_eq!(asked.differs_from(&asked), None);
            let another = Statement::read(&create_stream(&wanted(&other))).unwrap();
            prop_assert_eq!(another.differs_from(&asked).is_none(), other == value);
        }
    }
}
