//! Answers as a broker would send them, made by another implementation of the format.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;

fn record(offset: i64, key: Option<Vec<u8>>, value: Option<Vec<u8>>) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 5,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: 1_700_000_000_000 + offset,
        key: key.map(Bytes::from),
        value: value.map(Bytes::from),
        headers: IndexMap::new(),
    }
}

fn encode(records: &[Record], compression: Compression) -> Bytes {
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
    out.freeze()
}

fn opened(data: Bytes, from: i64, aborted: Vec<(i64, i64)>) -> Open {
    let mut table = Table::default();
    table.read(0, Some(from), None);
    table.set_cluster(Cluster {
        leaders: [(
            0,
            table::Leader {
                broker: 1,
                epoch: 5,
            },
        )]
        .into(),
        ..Cluster::default()
    });
    let generation = table.wanted(1, Instant::now())[0].generation;
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Open {
        records: Records {
            partition: 0,
            generation,
            from,
            data,
            aborted: AbortedTransactions::new(aborted),
            _room: Arc::new(room),
        },
        batch: None,
    }
}

/// Offset, key, value and time stamp of each record, taken chunk by chunk.
type Read = Vec<(i64, Option<Vec<u8>>, Option<Vec<u8>>, i64)>;

fn read(mut open: Open) -> Result<Read, (i64, BatchError)> {
    let (mut chunk, mut read) = (Chunk::new(), Vec::new());
    loop {
        chunk.clear();
        let more = open.fill(&mut chunk)?;
        for at in 0..chunk.len() {
            let Taken::Record(record) = chunk.get(at) else {
                panic!("an error in place of a record");
            };
            let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
            let (key, value) = (bytes(record.key), bytes(record.value));
            read.push((record.offset, key, value, record.timestamp.ms));
        }
        if !more {
            return Ok(read);
        }
    }
}

fn offsets(open: Open) -> Vec<i64> {
    read(open).unwrap().into_iter().map(|it| it.0).collect()
}

fn numbered(from: i64, to: i64) -> Vec<Record> {
    let value = |offset: i64| Some(offset.to_string().into_bytes());
    (from..to)
        .map(|offset| record(offset, Some(b"k".to_vec()), value(offset)))
        .collect()
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_are_read_as_they_were_written(
        contents in proptest::collection::vec((any_bytes(), any_bytes()), 1..60),
        compression in prop_oneof![
            Just(Compression::None), Just(Compression::Gzip), Just(Compression::Snappy),
            Just(Compression::Lz4), Just(Compression::Zstd),
        ],
        first in 0..1_000_000i64,
        skip in 0..70i64,
    ) {
        let records: Vec<Record> = (first..)
            .zip(contents)
            .map(|(offset, (key, value))| record(offset, key, value))
            .collect();
        let data = encode(&records, compression);
        prop_assert_eq!(batch::end_of(&data), Some((first + i64::try_from(records.len()).unwrap(), 5)));
        let expected: Read = records
            .iter()
            .filter(|record| record.offset >= first + skip)
            .map(|it| (it.offset, it.key.clone().map(Into::into), it.value.clone().map(Into::into), it.timestamp))
            .collect();
        prop_assert_eq!(read(opened(data, first + skip, vec![])).unwrap(), expected);
    }

    #[test]
    fn whatever_a_broker_sends_nothing_breaks(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = batch::end_of(&data.clone().into());
        let _ = read(opened(data.into(), 0, vec![]));
    }

    #[test]
    fn a_damaged_byte_is_noticed_or_changes_nothing(at in 0..600usize, bit in 0..8u32) {
        let data = encode(&numbered(0, 30), Compression::None);
        let mut damaged = data.to_vec();
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        // Base offset, length and the leader's epoch are the broker's to set, and outside the checksum.
        if at >= 17 {
            prop_assert_eq!(read(opened(damaged.into(), 0, vec![])), Err((0, BatchError::Checksum(0))));
        }
    }
}

#[test]
fn more_records_than_a_chunk_holds_come_in_several() {
    let mut data = BytesMut::new();
    for first in [0, 700, 1400] {
        data.extend_from_slice(&encode(&numbered(first, first + 700), Compression::Lz4));
    }
    let expected: Vec<i64> = (0..2100).collect();
    assert_eq!(offsets(opened(data.freeze(), 0, vec![])), expected);
}

#[test]
fn a_batch_that_is_cut_off_is_left_for_the_next_answer() {
    let mut data = BytesMut::from(&encode(&numbered(0, 10), Compression::None)[..]);
    let second = encode(&numbered(10, 20), Compression::None);
    data.extend_from_slice(&second[..second.len() - 3]);
    let data = data.freeze();
    assert_eq!(batch::end_of(&data), Some((10, 5)));
    assert_eq!(
        offsets(opened(data, 0, vec![])),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn offsets_that_no_partition_has_are_malformed() {
    let batch = encode(&numbered(0, 3), Compression::None);
    for (base, last_delta) in [(i64::MIN, -1), (i64::MAX, 1), (i64::MAX - 2, 2)] {
        let mut data = batch.to_vec();
        data[..8].copy_from_slice(&base.to_be_bytes());
        let place = crate::kafka::layout::LAST_OFFSET_DELTA;
        data[place..place + 4].copy_from_slice(&i32::to_be_bytes(last_delta));
        let mut data = Bytes::from(data);
        assert_eq!(batch::end_of(&data), None);
        let taken = Batch::take(&mut data);
        assert_eq!(taken.err(), Some(BatchError::Malformed(base)));
    }
}

#[test]
fn an_error_comes_behind_what_is_good_and_says_where_to_go_on() {
    let mut data = encode(&numbered(0, 10), Compression::None).to_vec();
    let good = data.len();
    data.extend_from_slice(&encode(&numbered(10, 20), Compression::None));
    data[good + 80] ^= 1;
    let mut open = opened(data.into(), 4, vec![]);
    let mut chunk = Chunk::new();
    assert_eq!(open.fill(&mut chunk), Err((10, BatchError::Checksum(10))));
    assert_eq!(chunk.len(), 6);
}

#[test]
fn where_an_asset_was_before_stands_in_the_last_header() {
    let moved_from = |headers: &[(&'static str, &'static str)]| {
        let mut with = record(3, None, Some(b"v".to_vec()));
        for (name, value) in headers {
            let value = Bytes::from_static(value.as_bytes());
            with.headers
                .insert(StrBytes::from_static_str(name), Some(value));
        }
        let mut open = opened(encode(&[with], Compression::None), 0, vec![]);
        let batch = open.next_batch().unwrap().unwrap();
        let parts = batch.reader().next(&batch).unwrap().unwrap();
        batch::moved_from(&batch.records, parts.headers).map(str::to_owned)
    };
    let source = ("Ofa-Source", "s/0/1");
    let from = ("Ofa-Moved-From", "asset_stream_Weld_topic");
    assert_eq!(moved_from(&[source, from]).as_deref(), Some(from.1));
    // The source's own.
    assert_eq!(moved_from(&[from, source]), None);
    let hostile = ("Ofa-Moved-From", "asset_stream_a\r\nPUB x 0\r\n_topic");
    for headers in [&[][..], &[source], &[source, hostile]] {
        assert_eq!(moved_from(headers), None);
    }
}

#[test]
fn headers_are_kept() {
    let mut with = record(3, None, Some(b"v".to_vec()));
    let name = StrBytes::from_static_str("name");
    with.headers
        .insert(name, Some(Bytes::from_static(b"value")));
    with.headers
        .insert(StrBytes::from_static_str("absent"), None);
    let mut open = opened(encode(&[with], Compression::Zstd), 0, vec![]);
    let batch = open.next_batch().unwrap().unwrap();
    let parts = batch.reader().next(&batch).unwrap().unwrap();
    let headers: Vec<_> = batch::headers(&batch.records, parts.headers).collect();
    assert_eq!(
        headers,
        [(&b"name"[..], Some(&b"value"[..])), (b"absent", None)]
    );
}

#[test]
fn what_was_left_of_a_partition_can_be_forgotten() {
    let mut open = opened(encode(&numbered(0, 10), Compression::None), 0, vec![]);
    let mut chunk = Chunk::new();
    let _ = open.fill(&mut chunk);
    chunk.forget(4, &[7]);
    assert_eq!(chunk.len(), 10);
    chunk.forget(4, &[0]);
    assert_eq!(chunk.len(), 4);
}

/// Producer 9's first transaction is given up, its second is not; producer 8 writes between.
#[test]
fn what_a_transaction_that_was_given_up_has_written_does_not_count() {
    let mut data = BytesMut::new();
    let mut add =
        |records: Vec<Record>| data.extend_from_slice(&encode(&records, Compression::None));
    let by = |producer, from, to| {
        let of = |record| Record {
            producer_id: producer,
            producer_epoch: 0,
            transactional: true,
            ..record
        };
        numbered(from, to).into_iter().map(of).collect::<Vec<_>>()
    };
    let marker = |producer, offset, kind| {
        let key = Some(vec![0, 0, 0, kind]);
        let marker = record(offset, key, Some(vec![0; 6]));
        vec![Record {
            producer_id: producer,
            producer_epoch: 0,
            transactional: true,
            control: true,
            ..marker
        }]
    };
    add(by(9, 0, 3));
    add(by(8, 3, 5));
    add(by(9, 5, 6));
    add(marker(9, 6, 0));
    add(by(9, 7, 9));
    add(marker(8, 9, 1));
    add(marker(9, 10, 1));
    add(numbered(11, 12));
    let data = data.freeze();
    assert_eq!(batch::end_of(&data).map(|it| it.0), Some(12));
    assert_eq!(offsets(opened(data, 0, vec![(9, 0)])), [3, 4, 7, 8, 11]);
}
