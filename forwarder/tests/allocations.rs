//! A record that is routed and encoded takes no memory of its own.

use ofa_crds::{Shard, ShardMap};
use ofa_forwarder::PayloadFormat;
use ofa_forwarder::internals::Hot;

const VALUE: &[u8] = br#"{"ID":"Temp","VALUE":"21.5","TYPE":"Samples","TAG":"Temperature","attributes":{"timestamp":"2026-01-02T03:04:05.678Z"}}"#;

#[test]
fn a_record_costs_no_allocation() {
    let shard = Shard {
        name: "C1".parse().unwrap(),
        urls: vec!["nats://localhost".to_owned()],
        advertised_urls: Vec::new(),
    };
    let map = ShardMap::from_ring(1, vec![shard], 100).unwrap();
    let record = |it| (format!("ASSET-{it:04}").into_bytes(), VALUE.to_vec());
    let records: Vec<_> = (0..1000).map(record).collect();
    for format in [PayloadFormat::OpenFactory, PayloadFormat::Verbatim] {
        let mut hot = Hot::new(map.clone(), format);
        // The buffers grow to their sizes; the second time each event has one before it to name.
        hot.take(&records);
        hot.take(&records);
        let counted = allocation_counter::measure(|| hot.take(&records));
        // The list of a batch's partitions, once for a thousand records.
        assert!(counted.count_total <= 1, "{format:?}: {counted:?}");
    }
}
