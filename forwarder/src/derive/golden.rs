//! The join against what a real ksqlDB wrote for the same records.

use ofa_crds::{GroupName, UnsEntry, UnsLevel};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::output::Format;
use super::route::{Joined, route};
use super::table::JoinTable;
use crate::route::{Poison, Record, Timestamp, TimestampKind};

/// Records and answers of ksqlDB 7.9.2 for
/// `CREATE STREAM ... AS SELECT s.* FROM ofa_assets s JOIN asset_to_uns_map h ...`, in order of time.
const FIXTURE: &str = include_str!("../../tests/fixtures/ksqldb_join.json");

#[derive(Deserialize)]
struct Fixture {
    input: Vec<Input>,
    output: Vec<Output>,
}

#[derive(Deserialize)]
struct Input {
    topic: String,
    key: Option<String>,
    value: Option<String>,
    timestamp: i64,
}

#[derive(Deserialize)]
struct Output {
    key: String,
    value: String,
    timestamp: i64,
}

fn record(input: &Input) -> Record<'_> {
    Record {
        partition: 0,
        offset: 0,
        timestamp: Timestamp {
            ms: input.timestamp,
            kind: TimestampKind::Producer,
        },
        key: input.key.as_deref().map(str::as_bytes),
        value: input.value.as_deref().map(str::as_bytes),
        moved_from: None,
    }
}

/// What is written to the group `Weld`, and what is refused.
fn derive(fixture: &Fixture, format: Format) -> (Vec<Output>, Vec<Poison>) {
    let weld: GroupName = "Weld".parse().unwrap();
    let mut table = JoinTable::new(UnsLevel::only("workcenter", vec![weld]));
    let (mut written, mut refused, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for input in &fixture.input {
        let record = record(input);
        if input.topic == "map" {
            if let Ok(entry) = UnsEntry::parse(record.value) {
                table.apply(input.key.as_deref().unwrap(), entry.as_ref());
            }
            continue;
        }
        match route(&record, &table, format, &mut buffer) {
            Ok(Joined::Nowhere | Joined::Unknown) => {}
            Ok(Joined::To(routed)) => written.push(Output {
                key: routed.asset.to_owned(),
                value: String::from_utf8(routed.value.to_vec()).unwrap(),
                timestamp: input.timestamp,
            }),
            Err(poison) => refused.push(poison),
        }
    }
    (written, refused)
}

/// By asset, since order holds for one asset; values as JSON, since ksqlDB's maps have no order.
fn by_asset(mut records: Vec<Output>) -> Vec<(String, i64, Value)> {
    records.sort_by(|a, b| a.key.cmp(&b.key));
    let parsed = |record: Output| {
        let value = serde_json::from_str(&record.value).unwrap();
        (record.key, record.timestamp, value)
    };
    records.into_iter().map(parsed).collect()
}

#[test]
fn the_ksqldb_format_is_what_ksqldb_wrote() {
    let fixture: Fixture = serde_json::from_str(FIXTURE).unwrap();
    let (written, refused) = derive(&fixture, Format::KsqlDb);
    assert_eq!(by_asset(written), by_asset(fixture.output));
    insta::assert_debug_snapshot!(refused);
}

#[test]
fn clean_derives_the_same_records_as_they_are() {
    let fixture: Fixture = serde_json::from_str(FIXTURE).unwrap();
    let (written, _) = derive(&fixture, Format::Clean);
    let text: Vec<String> = written
        .iter()
        .map(|record| format!("{} {}", record.key, record.value))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

proptest! {
    #[test]
    fn both_formats_take_any_object_and_neither_panics(text in "\\PC{0,40}|\\{\"(id|VALUE|attributes)\":[0-9e.\\[\\]{}\",-]{0,12}\\}") {
        let input = Input { topic: String::new(), key: Some("A".into()), value: Some(text), timestamp: 0 };
        let mut table = JoinTable::new(UnsLevel::every_value("l"));
        table.apply("A", Some(&[("l", "g")].into_iter().collect()));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let clean = route(&record(&input), &table, Format::Clean, &mut one);
        let ksqldb = route(&record(&input), &table, Format::KsqlDb, &mut other);
        if let Ok(Joined::To(routed)) = &ksqldb {
            prop_assert!(serde_json::from_slice::<Value>(routed.value).is_ok());
        }
        if clean.is_ok() {
            prop_assert!(!matches!(ksqldb, Err(poison) if poison != Poison::AttributesNotAnObject), "{:?}", ksqldb);
        }
    }
}
