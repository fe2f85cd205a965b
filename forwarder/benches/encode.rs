//! The time that a record costs between Kafka's bytes and those for NATS, beside what it costs to do the same with a JSON
//! library: `cargo bench -p ofa-forwarder --features internals`.
#![allow(
    clippy::expect_used,
    reason = "its input is its own, and a failure is to be seen"
)]

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use ofa_crds::{Shard, ShardMap};
use ofa_forwarder::PayloadFormat;
use ofa_forwarder::internals::Hot;

/// Records of a run; they and their values fit no cache, as in a forwarder that reads from a broker.
const RECORDS: usize = 200_000;

/// Runs of each; the fastest counts, since whatever else the machine does only slows it.
const ROUNDS: usize = 9;

fn main() {
    for (assets, bytes) in [
        (1_000, 200),
        (10_000, 200),
        (1_000_000, 200),
        (10_000_000, 200),
        (10_000, 1000),
    ] {
        let records: Vec<_> = (0..RECORDS).map(|it| record(it, assets, bytes)).collect();
        let plainly = fastest(|| plainly(&records));
        for format in [PayloadFormat::OpenFactory, PayloadFormat::Verbatim] {
            let mut hot = Hot::new(map(), format);
            let ours = fastest(|| hot.take(&records));
            let name = format!("encode-{format:?}-{assets}-assets-{bytes}-bytes");
            print(&name, ours, plainly);
        }
    }
}

fn map() -> ShardMap {
    let shard = |name: &str| Shard {
        name: name.parse().expect("a name"),
        urls: vec!["nats://localhost".to_owned()],
        advertised_urls: Vec::new(),
    };
    ShardMap::from_ring(1, vec![shard("C1"), shard("C2")], 100).expect("a map")
}

fn record(number: usize, assets: usize, bytes: usize) -> (String, String) {
    let number = number.wrapping_mul(7_919);
    let value = format!(
        r#"{{"ID":"Xact","VALUE":"{}.{:03}","TYPE":"Samples","TAG":"Position","attributes":{{"timestamp":"2026-01-02T03:04:05.{:06}Z","pad":""#,
        number % 1000,
        number % 997,
        number % 1_000_000,
    );
    let pad = "x".repeat(bytes.saturating_sub(value.len() + 3));
    (
        format!("ASSET-{:07}", number % assets),
        format!(r#"{value}{pad}"}}}}"#),
    )
}

/// Takes the id out and puts three members in, with `serde_json`.
fn plainly(records: &[(String, String)]) {
    for (_, value) in records {
        let mut event: serde_json::Value = serde_json::from_str(value).expect("JSON");
        let members = event.as_object_mut().expect("an object");
        members.remove("ID");
        let attributes = members["attributes"].as_object_mut().expect("an object");
        for name in [
            "asset_forwarder_timestamp",
            "kafka_timestamp",
            "kafka_timestamp_type",
        ] {
            attributes.insert(name.to_owned(), "2026-01-02T03:04:05.678Z".into());
        }
        black_box(event.to_string());
    }
}

fn fastest(mut run: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        run();
        best = best.min(began.elapsed());
    }
    best
}

#[allow(clippy::cast_precision_loss)] // Far below 2^52.
fn print(name: &str, ours: Duration, plainly: Duration) {
    let each = ours.as_secs_f64() * 1e9 / RECORDS as f64;
    let ratio = ours.as_secs_f64() / plainly.as_secs_f64();
    writeln!(
        std::io::stdout(),
        "bench {name} {each:.0} ns/record ratio={ratio:.2}"
    )
    .expect("standard output");
}
