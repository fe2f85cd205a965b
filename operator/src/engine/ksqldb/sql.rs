//! The one place where statements are written. Names and values come into them through [`Identifier`] and [`literal`] alone.

pub use ofa_crds::ksql::{Identifier, IdentifierError, literal};

use super::Wanted;

/// Text where ksqlDB takes no expression but quoted text alone: topics, which hold no special characters.
fn property(topic: &str) -> String {
    format!("'{}'", topic.replace('\'', "''"))
}

/// The statement that makes a group's stream.
#[must_use]
pub fn create_stream(wanted: &Wanted) -> String {
    let mut with = format!(
        "KAFKA_TOPIC={}, VALUE_FORMAT='JSON'",
        property(&wanted.topic)
    );
    if let Some(partitions) = wanted.partitions {
        with.push_str(&format!(", PARTITIONS={partitions}"));
    }
    if let Some(retention) = wanted.retention_ms {
        with.push_str(&format!(", RETENTION_MS={retention}"));
    }
    // Each column by its name: SELECT s.* would call them S_ID and so on.
    format!(
        "CREATE STREAM {} WITH ({with}) AS SELECT s.`ASSET_UUID` AS `ASSET_UUID`, s.`ID` AS `ID`, s.`VALUE` AS `VALUE`, \
         s.`TAG` AS `TAG`, s.`TYPE` AS `TYPE`, s.`ATTRIBUTES` AS `ATTRIBUTES` FROM {} s JOIN {} h \
         ON s.`ASSET_UUID` = h.`ASSET_UUID` WHERE h.`UNS_LEVELS`[{}] = {};",
        wanted.name,
        wanted.source,
        wanted.map,
        literal(&wanted.level),
        literal(wanted.value.as_str()),
    )
}

/// The statement that removes a stream and its query. Its topic stays: ksqlDB deletes the topic even of a stream that it
/// then refuses to drop, so that is never asked of it.
#[must_use]
pub fn drop_stream(name: &Identifier) -> String {
    format!("DROP STREAM {name};")
}

/// The statement that lets a paused query go on.
#[must_use]
pub fn resume(query: &str) -> String {
    // The id of a query is no quoted name in ksqlDB's grammar unless it must be.
    format!("RESUME {};", Identifier::kept(query))
}

/// The question about one stream.
#[must_use]
pub fn describe(name: &Identifier) -> String {
    format!("DESCRIBE {name} EXTENDED;")
}
