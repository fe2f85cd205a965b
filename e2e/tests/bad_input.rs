//! Records that are no events, between good ones.

use anyhow::ensure;
use ofa_crds::subject;
use ofa_e2e::kafka::Record;
use ofa_e2e::load;
use ofa_e2e::nats::MAX_PAYLOAD;
use ofa_e2e::scene::{PARTITIONS, scenario};
use ofa_e2e::watch::Recorder;

/// Rounds of every kind of bad record, each with good records around it, on every partition.
const ROUNDS: u64 = 20;

fn record(key: Option<&[u8]>, value: Option<&[u8]>, partition: i32) -> Record {
    Record {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        partition,
    }
}

/// Every kind of bad record, by the name it is counted under.
fn bad(partition: i32) -> Vec<(&'static str, Record)> {
    let key = Some(&b"MACHINE"[..]);
    let event = load::event(1, jiff::Timestamp::UNIX_EPOCH);
    let event = Some(event.as_bytes());
    let of = |key, value| record(key, value, partition);
    vec![
        ("tombstone", of(key, None)),
        ("invalid_json", of(key, Some(b"{\"ID\":\"x\",\"VALUE\":"))),
        ("invalid_json", of(key, Some(b"\xff\xfe\x00"))),
        ("invalid_json", of(key, Some(b""))),
        ("not_an_object", of(key, Some(b"[1,2,3]"))),
        ("not_an_object", of(key, Some(b"\"text\""))),
        ("missing_id", of(key, Some(b"{\"VALUE\":1}"))),
        ("missing_id", of(key, Some(b"{\"ID\":null,\"VALUE\":1}"))),
        ("null_key", of(None, event)),
        ("empty_key", of(Some(b""), event)),
        ("non_utf8_key", of(Some(b"\xc3\x28"), event)),
    ]
}

/// Keys that are none too nice, but name an asset.
fn hostile_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "OKUMA.123456",
        "a b",
        "*",
        ">",
        "a.*.>",
        "$SYS",
        "_INBOX.x",
        "_OFA.witness",
        "x\r\nPUB y 1\r\nz\r\n",
        "50%",
        "\u{0}",
        "\u{3000}",
        "Müller-3",
        ".",
        "..",
        "'; DROP TABLE assets; --",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.push("k".repeat(5_000));
    keys
}

/// An event of about this many bytes.
fn large(bytes: usize) -> Vec<u8> {
    format!(r#"{{"ID":"blob","VALUE":"{}"}}"#, "v".repeat(bytes)).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_counted_by_kind_and_stop_nothing() {
    scenario("bad-input", async |scene| {
        let shards = scene.shards(2, 2).await?;
        let first = Recorder::start(&shards[0].nodes()[0]).await?;
        let second = Recorder::start(&shards[1].nodes()[0]).await?;
        let mut forwarder = scene.forwarder("f1", &shards).await?;

        let mut records = Vec::new();
        let mut kinds: std::collections::BTreeMap<&str, f64> = std::collections::BTreeMap::new();
        let mut count = 0;
        for _ in 0..ROUNDS {
            for partition in 0..PARTITIONS {
                for (kind, bad) in bad(partition) {
                    count += 1;
                    let (key, value) = (
                        format!("M{partition}"),
                        load::event(count, jiff::Timestamp::UNIX_EPOCH),
                    );
                    records.push(record(
                        Some(key.as_bytes()),
                        Some(value.as_bytes()),
                        partition,
                    ));
                    records.push(bad);
                    *kinds.entry(kind).or_default() += 1.0;
                }
            }
        }
        for (index, key) in hostile_keys().iter().enumerate() {
            let value = load::event(0, jiff::Timestamp::UNIX_EPOCH);
            let partition = i32::try_from(index)? % PARTITIONS;
            records.push(record(
                Some(key.as_bytes()),
                Some(value.as_bytes()),
                partition,
            ));
        }
        for partition in 0..PARTITIONS {
            let key = format!("L{partition}");
            records.push(record(
                Some(key.as_bytes()),
                Some(&large(1_000_000)),
                partition,
            ));
            records.push(record(
                Some(b"TOO-LARGE"),
                Some(&large(MAX_PAYLOAD)),
                partition,
            ));
            *kinds.entry("too_large").or_default() += 1.0;
            records.push(record(Some(key.as_bytes()), Some(&large(10)), partition));
        }
        scene.broker().produce(scene.topic(), &records)?;
        scene.everything_committed().await?;

        for (kind, wanted) in &kinds {
            let counted = forwarder
                .metric(
                    "asset_forwarder_poison_records_total",
                    &format!("kind=\"{kind}\""),
                )
                .await?;
            ensure!(
                (counted - wanted).abs() < 0.5,
                "{counted} records counted as {kind}, {wanted} written"
            );
        }
        let all = forwarder
            .metric("asset_forwarder_invalid_messages_total", "")
            .await?;
        ensure!(
            (all - kinds.values().sum::<f64>()).abs() < 0.5,
            "{all} records counted as bad"
        );
        ensure!(
            forwarder.process().ended()?.is_none(),
            "the forwarder has ended"
        );
        let said = forwarder.process().log().matches("passed over").count();
        ensure!(
            (1..200).contains(&said),
            "{said} lines in the log for {all} bad records"
        );

        // Too large an event is one by its form, so the comparison with Kafka would miss it.
        let good = good_records(&records);
        let received = scene.records(&[&first, &second]).await.concat();
        ensure!(
            first.foreign() + second.foreign() == 0,
            "messages that are no events"
        );
        let mut seen: Vec<(String, Vec<u8>)> = received
            .iter()
            .map(|it| (it.asset.clone(), it.payload.to_vec()))
            .collect();
        seen.sort();
        ensure!(
            seen.len() == good.len(),
            "{} events received, {} written",
            seen.len(),
            good.len()
        );
        let names = |pairs: Vec<String>| pairs;
        let received_names = names(seen.iter().map(|(asset, _)| asset.clone()).collect());
        ensure!(
            received_names == good,
            "the assets received are not those written"
        );
        for key in hostile_keys() {
            ensure!(
                received.iter().any(|event| event.asset == key),
                "nothing received of {}",
                subject::encode_text(&key)
            );
        }
        Ok(())
    })
    .await;
}

/// Assets of all good records, sorted.
fn good_records(records: &[Record]) -> Vec<String> {
    let good = records.iter().filter(|record| {
        let fits = record
            .value
            .as_ref()
            .is_some_and(|value| value.len() < MAX_PAYLOAD);
        fits && ofa_client::audit::asset_of_event(record.key.as_deref(), record.value.as_deref())
            .is_some()
    });
    let mut assets: Vec<String> = good
        .filter_map(|record| String::from_utf8(record.key.clone()?).ok())
        .collect();
    assets.sort();
    assets
}
