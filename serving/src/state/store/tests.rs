use std::io;
use std::sync::mpsc;

use redb::StorageBackend;

use super::*;
use crate::event::Columns;

fn change(asset: &str, json: &str) -> Change {
    Change {
        asset: asset.into(),
        columns: Columns::parse(json.as_bytes()).unwrap(),
    }
}

fn value(store: &StateStore, asset: &str, id: &str) -> Option<String> {
    store.item(asset, id).unwrap().and_then(|item| item.value)
}

#[test]
fn each_column_keeps_its_last_value_that_is_not_null() {
    let store = StateStore::open(None, "t").unwrap();
    let first = r#"{"ID":"x","VALUE":1,"TAG":"Position","TYPE":"Samples"}"#;
    store.apply(vec![change("A", first)], [(0, 1)]).unwrap();
    let then = [
        r#"{"id":"x","value":2}"#,
        r#"{"ID":"x","VALUE":null,"TYPE":"Events"}"#,
        r#"{"VALUE":9}"#,
    ];
    let then = then.iter().map(|json| change("A", json)).collect();
    store.apply(then, [(0, 4)]).unwrap();
    let expected = Item {
        id: "x".into(),
        value: Some("2".into()),
        kind: Some("Events".into()),
        tag: Some("Position".into()),
        timestamp: None,
    };
    assert_eq!(store.items("A").unwrap(), [expected]);
}

#[test]
fn an_asset_has_its_own_items_alone() {
    let store = StateStore::open(None, "t").unwrap();
    let event = r#"{"ID":"x","VALUE":1}"#;
    let all = ["A", "A1", "B"].map(|asset| change(asset, event));
    store.apply(all.to_vec(), []).unwrap();
    assert_eq!(store.items("A").unwrap().len(), 1);
    assert_eq!(store.items("").unwrap(), []);
    assert_eq!(store.items("C").unwrap(), []);
}

#[test]
fn state_and_position_outlive_the_process_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::open(Some(folder.path()), "t").unwrap();
    let event = change("A", r#"{"ID":"x","VALUE":1}"#);
    store.apply(vec![event], [(0, 5), (2, 7)]).unwrap();
    store.sync().unwrap();
    assert!(matches!(
        StateStore::open(Some(folder.path()), "t"),
        Err(StateError::Open { .. })
    ));
    drop(store);

    let store = StateStore::open(Some(folder.path()), "t").unwrap();
    assert_eq!(store.positions().unwrap(), BTreeMap::from([(0, 5), (2, 7)]));
    assert_eq!(value(&store, "A", "x").as_deref(), Some("1"));
    store.clear().unwrap();
    assert_eq!(store.positions().unwrap(), BTreeMap::new());
    assert_eq!(value(&store, "A", "x"), None);
}

/// A disk that makes nothing safe until it is let.
#[derive(Debug)]
struct BusyDisk {
    memory: InMemoryBackend,
    gate: Arc<Mutex<()>>,
    waits: mpsc::Sender<()>,
}

impl StorageBackend for BusyDisk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let _ = self.waits.send(());
        let _open = self.gate.lock();
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

#[test]
fn who_reads_the_stream_does_not_wait_for_a_busy_disk() {
    let gate = Arc::new(Mutex::new(()));
    let (waits, waiting) = mpsc::channel();
    let disk = BusyDisk {
        memory: InMemoryBackend::new(),
        gate: Arc::clone(&gate),
        waits,
    };
    let database = Database::builder().create_with_backend(disk).unwrap();
    let store = Arc::new(StateStore::of(database, "t").unwrap());
    let event = |value: u32| change("A", &format!(r#"{{"ID":"x","VALUE":{value}}}"#));
    store.apply(vec![event(1)], [(0, 1)]).unwrap();
    while waiting.try_recv().is_ok() {}

    let closed = gate.lock();
    let syncs = std::thread::spawn({
        let store = Arc::clone(&store);
        move || store.sync()
    });
    waiting.recv().unwrap();
    let tag = change("A", r#"{"ID":"x","TAG":"Position"}"#);
    store.apply(vec![event(2), tag], [(0, 3)]).unwrap();
    store
        .apply(vec![change("A", r#"{"ID":"y","VALUE":9}"#)], [(0, 4)])
        .unwrap();
    assert_eq!(value(&store, "A", "x").as_deref(), Some("2"));
    let ids = store.items("A").unwrap();
    let ids: Vec<_> = ids.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["x", "y"]);

    drop(closed);
    syncs.join().unwrap().unwrap();
    assert_eq!(store.positions().unwrap(), BTreeMap::from([(0, 1)]));
    store.sync().unwrap();
    assert_eq!(store.positions().unwrap(), BTreeMap::from([(0, 4)]));
    let item = store.item("A", "x").unwrap().unwrap();
    assert_eq!(item.value.as_deref(), Some("2"));
    assert_eq!(item.tag.as_deref(), Some("Position"));
}
