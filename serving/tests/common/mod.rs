//! A real broker, the service as a process, and a client that comes back as EventSource does.
#![allow(dead_code, reason = "every test program uses its part")]

#[path = "../../../client/tests/common/servers.rs"]
mod servers;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eventsource_stream::{Event, Eventsource as _};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use ofa_crds::kafka::KafkaSettings;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

pub(crate) use servers::free_port;
use servers::program;

/// Long enough for a busy machine; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A child process that is killed when dropped.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A broker of its own; stopped and its data removed when dropped.
pub(crate) struct Broker {
    _process: Process,
    _data: tempfile::TempDir,
    address: String,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let (port, controller) = (free_port(), free_port());
        let data = tempfile::tempdir().unwrap();
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let child = Command::new(program("kafka-server"))
            .env("KAFKA_LISTENERS", listeners)
            .env("KAFKA_LOG_DIRS", data.path().join("data"))
            .env("KAFKA_HEAP_OPTS", "-Xms96m -Xmx256m")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kafka-server is installed: run e2e/tools/setup kafka");
        Self {
            _process: Process(child),
            _data: data,
            address: format!("127.0.0.1:{port}"),
        }
    }

    pub(crate) fn settings(&self) -> KafkaSettings {
        KafkaSettings::plain(&self.address)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.settings().client_config().unwrap().create().unwrap()
    }

    /// Creates a topic as soon as the broker answers.
    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        let admin = self.admin();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match admin.create_topics([&topic], &options).await {
                Ok(created) if created[0].is_ok() => return,
                // An earlier attempt that was not answered in time.
                Ok(created)
                    if matches!(created[0], Err((_, RDKafkaErrorCode::TopicAlreadyExists))) =>
                {
                    return;
                }
                other => assert!(Instant::now() < deadline, "no topic: {other:?}"),
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Removes what stands before `offset` on each partition, as retention does.
    pub(crate) async fn delete_before(&self, topic: &str, offsets: &[i64]) {
        let mut list = TopicPartitionList::new();
        for (partition, &offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))
                .unwrap();
        }
        let options = AdminOptions::new();
        self.admin().delete_records(&list, &options).await.unwrap();
    }

    /// Has a consumer group stand at these offsets, one for each partition.
    pub(crate) async fn commit(&self, group: &str, topic: &str, offsets: &[i64]) {
        let mut list = TopicPartitionList::new();
        for (partition, &offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(offset))
                .unwrap();
        }
        let mut config = self.settings().client_config().unwrap();
        let consumer: BaseConsumer = config.set("group.id", group).create().unwrap();
        let deadline = Instant::now() + PATIENCE;
        // The group's coordinator may still come to be.
        while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            assert!(Instant::now() < deadline, "not committed: {error}");
            sleep(Duration::from_millis(300)).await;
        }
    }

    pub(crate) fn producer(&self) -> FutureProducer {
        let mut config = self.settings().client_config().unwrap();
        config.set("linger.ms", "1");
        // Tests look at the order, which retries of an ordinary producer may change.
        config.set("enable.idempotence", "true");
        config.create().unwrap()
    }
}

/// Writes an event; what it says is `number`.
pub(crate) fn produce(
    producer: &FutureProducer,
    (topic, partition): (&str, i32),
    (asset, id): (&str, &str),
    number: usize,
    padding: usize,
) {
    let value = json!({
        "ID": id,
        "VALUE": number,
        "TYPE": "Samples",
        "TAG": "Position",
        "attributes": { "timestamp": "2026-01-02T03:04:05Z", "padding": "x".repeat(padding) },
    });
    let value = value.to_string();
    let record = FutureRecord::to(topic)
        .partition(partition)
        .key(asset)
        .payload(&value);
    // Queued and not waited for, so that many go together.
    producer
        .send_result(record)
        .map_err(|(error, _)| error)
        .unwrap();
}

/// The program, with its settings: started, killed and started again.
pub(crate) struct Service {
    process: Option<Process>,
    command: &'static str,
    port: u16,
    settings: Vec<(String, String)>,
}

impl Service {
    pub(crate) fn new(command: &'static str, broker: &Broker, settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut all = vec![
            ("KAFKA_BROKER".to_owned(), broker.address.clone()),
            ("PORT".to_owned(), port.to_string()),
            ("BIND_ADDRESS".to_owned(), "127.0.0.1".to_owned()),
        ];
        all.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Self {
            process: None,
            command,
            port,
            settings: all,
        }
    }

    pub(crate) fn state_dir(mut self, folder: &Path) -> Self {
        let folder = folder.to_str().unwrap().to_owned();
        self.settings.push(("STATE_DIR".to_owned(), folder));
        self
    }

    /// Starts the program and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts the program.
    pub(crate) fn spawn(&mut self) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let child = Command::new(env!("CARGO_BIN_EXE_serving"))
            .arg(self.command)
            .envs(self.settings.iter().cloned())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(Process(child));
    }

    /// Waits until the program is ready.
    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready().await {
            assert!(Instant::now() < deadline, "{} is not ready", self.command);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let answer = reqwest::get(self.url("/ready")).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = process.0.id().to_string();
        Command::new("kill").arg(&pid).status().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.0.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::get(self.url(path)).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(self.url("/metrics")).await.unwrap();
        let text = text.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or("0").trim().parse().unwrap()
    }
}

/// A client that keeps its last id and comes back with it.
pub(crate) struct EventSource {
    url: String,
    id: String,
    stream: Option<BoxStream<'static, Event>>,
    /// What each asset's events said, in the order of their coming.
    pub(crate) numbers: BTreeMap<String, Vec<usize>>,
    /// Reasons of gaps.
    pub(crate) gaps: Vec<String>,
}

impl EventSource {
    pub(crate) fn new(url: String) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url,
            id: String::new(),
            stream: None,
            numbers: BTreeMap::new(),
            gaps: Vec::new(),
        }
    }

    pub(crate) fn last_id(&self) -> &str {
        &self.id
    }

    /// Connects, with the last id if there is one. False while there is nobody to answer.
    pub(crate) async fn connect(&mut self) -> bool {
        let mut request = reqwest::Client::new().get(&self.url);
        if !self.id.is_empty() {
            request = request.header("Last-Event-ID", &self.id);
        }
        let Ok(answer) = request.send().await else {
            return false;
        };
        if !answer.status().is_success() {
            return false;
        }
        assert!(
            answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/event-stream")
        );
        let mut bytes = answer.bytes_stream();
        let Some(Ok(first)) = bytes.next().await else {
            return false;
        };
        // An id without event counts for EventSource, but not for the parser used here.
        let hello = std::str::from_utf8(&first)
            .unwrap()
            .split("\n\n")
            .next()
            .unwrap();
        let id = hello.lines().find_map(|line| line.strip_prefix("id: "));
        self.id = id.unwrap().to_owned();
        let bytes = futures::stream::once(async { Ok(first) }).chain(bytes);
        // A broken connection is an end like any other.
        let events = bytes.eventsource();
        let events = events.take_while(|event| std::future::ready(event.is_ok()));
        self.stream = Some(events.map(Result::unwrap).boxed());
        true
    }

    /// Receives until each asset of `expected` has as many events, connecting again whenever the stream ends.
    pub(crate) async fn receive(&mut self, expected: &BTreeMap<String, usize>) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has(expected) {
            assert!(
                Instant::now() < deadline,
                "received only {:?}",
                self.counts()
            );
            match timeout(Duration::from_secs(1), self.step()).await {
                Ok(true) | Err(_) => {}
                Ok(false) => {
                    sleep(Duration::from_millis(20)).await;
                    self.connect().await;
                }
            }
        }
    }

    fn has(&self, expected: &BTreeMap<String, usize>) -> bool {
        let count = |asset| self.numbers.get(asset).map_or(0, Vec::len);
        expected
            .iter()
            .all(|(asset, wanted)| count(asset) >= *wanted)
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let count = |(asset, numbers): (&String, &Vec<usize>)| (asset.clone(), numbers.len());
        self.numbers.iter().map(count).collect()
    }

    /// Takes the next event; false at the stream's end.
    pub(crate) async fn step(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let Some(event) = stream.next().await else {
            self.stream = None;
            return false;
        };
        if !event.id.is_empty() {
            self.id = event.id;
        }
        match event.event.as_str() {
            "asset_update" => {
                let event: Value = serde_json::from_str(&event.data).unwrap();
                // The tests' ids begin with the asset's name.
                let asset = event["ID"].as_str().unwrap().split('/').next().unwrap();
                let number = usize::try_from(event["VALUE"].as_u64().unwrap()).unwrap();
                self.numbers
                    .entry(asset.to_owned())
                    .or_default()
                    .push(number);
            }
            "gap" => {
                let gap: Value = serde_json::from_str(&event.data).unwrap();
                self.gaps.push(gap["reason"].as_str().unwrap().to_owned());
            }
            other => panic!("an event '{other}'"),
        }
        true
    }
}
