//! Derived streams by ksqlDB: one persistent query for each group.
//!
//! What a server has ([`Observed`]) and what is asked for ([`Wanted`]) make a plan ([`plan`], pure); a task for each server
//! ([`KsqlServers`]) takes its steps one by one, since ksqlDB takes only one changing statement at a time, and looks again
//! after each, since neither an error nor a time-out says that nothing was done. Statements are written in [`sql`] alone
//! and never say `DELETE TOPIC`.

mod answers;
mod canonical;
mod client;
mod observe;
pub mod plan;
mod servers;
pub mod sql;
mod task;

use ofa_crds::GroupName;

pub use client::{KsqlClient, KsqlError};
pub use observe::{Health, Observed, QueryProgress, RunningQuery};
pub use plan::Action;
pub use servers::{Claim, KsqlServers, StreamState};
pub use sql::{Identifier, IdentifierError};

/// A stream asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: Identifier,
    /// Its topic.
    pub topic: String,
    /// Topic with the events of all assets.
    pub source_topic: String,
    /// The stream over that topic.
    pub source: Identifier,
    /// The table of assets and their levels.
    pub map: Identifier,
    /// The level.
    pub level: String,
    /// The level's value.
    pub value: GroupName,
    /// Partitions of the topic; the source's if not set.
    pub partitions: Option<u16>,
    /// Milliseconds the topic keeps a record; the broker's default if not set.
    pub retention_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the group `value` of the level `workcenter` asks for.
    pub(super) fn wanted(value: &str) -> Wanted {
        let value: GroupName = value.parse().unwrap();
        Wanted {
            name: Identifier::new(&value.stream()).unwrap(),
            topic: value.topic(),
            source_topic: "ofa_assets".to_owned(),
            source: Identifier::kept("ASSETS_STREAM"),
            map: Identifier::kept("ASSET_TO_UNS_MAP"),
            level: "workcenter".to_owned(),
            value,
            partitions: None,
            retention_ms: None,
        }
    }

    #[test]
    fn statements() {
        let names = [
            "Weld",
            "weld",
            "WC-1",
            "Halle 3/Süd",
            "'; DROP STREAM x; --",
            "${KSQL}` it's",
            "\\'\n\"",
        ];
        let statements = names.map(|name| sql::create_stream(&wanted(name)));
        insta::assert_snapshot!(statements.join("\n"));
    }

    #[test]
    fn nothing_ever_deletes_a_topic() {
        let name = Identifier::kept("a` DELETE TOPIC; --");
        assert_eq!(
            sql::drop_stream(&name),
            "DROP STREAM `a`` DELETE TOPIC; --`;"
        );
        assert!(Identifier::new("a` b").is_err());
        assert_eq!(Identifier::new("Weld-1").unwrap().to_string(), "`Weld-1`");
        assert_eq!(Identifier::new("weld").unwrap().to_string(), "`WELD`");
    }
}
