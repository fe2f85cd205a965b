//! Records as forwarders publish them, in the lines of an answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use ofa_crds::payload::{Edited, PayloadFormat, Stamp};
use ofa_crds::replay::{ReplayEvent, ReplayLine};

use super::record::Record;

/// Writes lines; what one call has gathered goes out together.
pub(super) struct Encoder {
    format: PayloadFormat,
    stamp: Stamp,
    payload: Vec<u8>,
    out: Vec<u8>,
}

/// The newest event of each attribute of some assets.
#[derive(Default)]
pub(super) struct Newest(HashMap<Arc<str>, BTreeMap<String, Record>>);

impl Newest {
    /// Takes an asset's event in. They come in order.
    pub(super) fn take(&mut self, record: Record, format: PayloadFormat) {
        if let Ok(event) = Edited::new(&record.value, format) {
            let id = event.id.clone().into_owned();
            let of_asset = self.0.entry(Arc::clone(&record.asset)).or_default();
            of_asset.insert(id, record);
        }
    }

    /// An asset's attributes.
    pub(super) fn of(&self, asset: &str) -> impl Iterator<Item = &Record> {
        self.0.get(asset).into_iter().flat_map(BTreeMap::values)
    }

    /// How many attributes are kept, of all assets.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

impl Encoder {
    #[must_use]
    pub(super) fn new(format: PayloadFormat) -> Self {
        Self {
            format,
            stamp: Stamp::default(),
            payload: Vec::new(),
            out: Vec::new(),
        }
    }

    /// The time that events are stamped with from here on.
    pub(super) fn set_now(&mut self, now_ms: i64) {
        self.stamp.set_now(now_ms);
    }

    /// Writes a line without payload.
    pub(super) fn line(&mut self, line: &ReplayLine) {
        line.write(b"", &mut self.out);
    }

    /// Writes an event. A record that forwarders pass over is passed over here too; returns whether it was written.
    pub(super) fn event(
        &mut self,
        partition: u32,
        record: &Record,
        line: impl FnOnce(ReplayEvent) -> ReplayLine,
    ) -> bool {
        let Ok(event) = Edited::new(&record.value, self.format) else {
            return false;
        };
        self.payload.clear();
        event.push(&mut self.payload, &mut self.stamp, record.timestamp);
        let event = ReplayEvent {
            partition,
            offset: record.offset,
            asset: record.asset.as_ref().to_owned(),
            id: event.id.into_owned(),
            moved_from: record.moved_from.as_deref().map(str::to_owned),
            bytes: self.payload.len(),
        };
        line(event).write(&self.payload, &mut self.out);
        true
    }

    /// Everything written since the last call.
    pub(super) fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.out))
    }
}

#[cfg(test)]
mod tests {
    use ofa_crds::replay::ReplayDecoder;

    use super::*;

    #[test]
    fn an_event_is_what_a_forwarder_publishes() {
        let mut encoder = Encoder::new(PayloadFormat::OpenFactory);
        let mut poison = Record::for_test(8, "A");
        poison.value = Bytes::from_static(b"no JSON");
        assert!(encoder.event(3, &Record::for_test(7, "A"), ReplayLine::Event));
        assert!(!encoder.event(3, &poison, ReplayLine::Event));
        let mut decoder = ReplayDecoder::default();
        decoder.push(&encoder.take());
        let (line, payload) = decoder.next_line().unwrap().unwrap();
        let ReplayLine::Event(event) = line else {
            panic!("{line:?}");
        };
        assert_eq!((event.asset.as_str(), event.id.as_str()), ("A", "x"));
        assert_eq!((event.partition, event.offset), (3, 7));
        assert_eq!(
            std::str::from_utf8(&payload).unwrap(),
            r#"{"v":7,"attributes":{"asset_forwarder_timestamp":"1970-01-01T00:00:00.000Z","kafka_timestamp":null,"kafka_timestamp_type":"unknown"}}"#
        );
        assert!(decoder.next_line().unwrap().is_none());
    }

    #[test]
    fn the_state_has_the_newest_of_each_attribute() {
        let mut newest = Newest::default();
        for (offset, id) in [(1, "x"), (2, "y"), (3, "x")] {
            let mut record = Record::for_test(offset, "A");
            record.value = Bytes::from(format!(r#"{{"id":"{id}"}}"#));
            newest.take(record, PayloadFormat::OpenFactory);
        }
        let offsets: Vec<u64> = newest.of("A").map(|record| record.offset).collect();
        assert_eq!(offsets, [3, 2]);
        assert_eq!((newest.len(), newest.of("B").count()), (2, 0));
    }
}
