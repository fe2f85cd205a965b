//! What the forwarders tell about themselves on `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

/// Port of a forwarder's metrics.
const PORT: u16 = 4000;

/// A forwarder that takes longer is shown without figures.
const TIMEOUT: Duration = Duration::from_millis(800);

/// One forwarder's figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Forwarder {
    /// Messages that a shard has for good, by shard.
    pub(crate) confirmed: BTreeMap<String, f64>,
    /// Nodes that confirm, by shard: 2 a second node, 1 the same one, 0 none.
    pub(crate) witness: BTreeMap<String, f64>,
    /// Confirmed position, by partition.
    pub(crate) committed: BTreeMap<u32, f64>,
    /// Records behind the end of the topic, all partitions together.
    pub(crate) lag: f64,
    /// Records that could not be forwarded.
    pub(crate) invalid: f64,
}

/// Asks one forwarder.
pub(crate) async fn forwarder(http: &reqwest::Client, host: &str) -> Option<Forwarder> {
    let request = http
        .get(format!("http://{host}:{PORT}/metrics"))
        .timeout(TIMEOUT);
    let text = request.send().await.ok()?.text().await.ok()?;
    Some(read(&text))
}

fn read(text: &str) -> Forwarder {
    let mut forwarder = Forwarder::default();
    for (name, labels, value) in text.lines().filter_map(sample) {
        let label = |wanted: &str| label(labels, wanted);
        let cluster = || label("cluster").unwrap_or_default().to_owned();
        match name {
            "asset_forwarder_nats_messages_confirmed_total" => {
                forwarder.confirmed.insert(cluster(), value);
            }
            "asset_forwarder_witness_mode" => {
                forwarder.witness.insert(cluster(), value);
            }
            "asset_forwarder_committed_offset" => {
                if let Some(partition) = label("partition").and_then(|it| it.parse().ok()) {
                    forwarder.committed.insert(partition, value);
                }
            }
            "asset_forwarder_lag" => forwarder.lag += value,
            "asset_forwarder_invalid_messages_total" => forwarder.invalid += value,
            _ => {}
        }
    }
    forwarder
}

/// Name, labels and value of a line `name{labels} value`.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
}

/// Shards and partitions have names without quotes or commas.
fn label<'a>(labels: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_shard_and_partition() {
        let text = r#"# TYPE asset_forwarder_lag gauge
asset_forwarder_nats_messages_confirmed_total{cluster="line-1"} 120
asset_forwarder_witness_mode{cluster="line-1"} 2
asset_forwarder_committed_offset{partition="3"} 77
asset_forwarder_lag{partition="3"} 4
asset_forwarder_lag{partition="4"} 6
asset_forwarder_invalid_messages_total{forwarder="f-0"} 1
# EOF"#;
        let expected = Forwarder {
            confirmed: BTreeMap::from([("line-1".to_owned(), 120.0)]),
            witness: BTreeMap::from([("line-1".to_owned(), 2.0)]),
            committed: BTreeMap::from([(3, 77.0)]),
            lag: 10.0,
            invalid: 1.0,
        };
        assert_eq!(read(text), expected);
    }
}
