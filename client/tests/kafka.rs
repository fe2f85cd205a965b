//! A simulated factory against a real broker, read back and compared as the demo and the fault tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ofa_client::audit::kafka::{Positions, end_positions, read};
use ofa_client::audit::{Expected, Received};
use ofa_client::produce::{ProduceError, Producer, TopicWanted, ensure_topic};
use ofa_client::simulator::{self, Factory, Pace};
use ofa_crds::kafka::KafkaSettings;

const TOPIC: &str = "ofa_assets";

/// A broker of its own; stopped and its data removed when dropped.
struct Broker {
    child: Child,
    data: PathBuf,
    settings: KafkaSettings,
}

impl Broker {
    fn start() -> Self {
        let (port, controller) = (common::free_port(), common::free_port());
        let data = std::env::temp_dir().join(format!("ofa-client-kafka-{}", std::process::id()));
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let child = Command::new(common::program("kafka-server"))
            .env("KAFKA_LISTENERS", listeners)
            .env("KAFKA_LOG_DIRS", data.join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kafka-server is installed: run e2e/tools/setup kafka");
        Self {
            child,
            data,
            settings: KafkaSettings::plain(format!("127.0.0.1:{port}")),
        }
    }

    /// Creates the topic as soon as the broker answers.
    async fn create_topic(&self) {
        let wanted = TopicWanted {
            name: TOPIC,
            partitions: 3,
            compacted: false,
        };
        let deadline = Instant::now() + 2 * common::PATIENCE;
        while let Err(error) = ensure_topic(&self.settings, wanted).await {
            assert!(Instant::now() < deadline, "{error}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn simulate(settings: &KafkaSettings, seed: u64) -> u64 {
    let producer = Producer::new(settings, Duration::from_millis(1)).unwrap();
    let pace = Pace {
        topic: TOPIC.to_owned(),
        places: false,
        length: Some(Duration::from_secs(1)),
    };
    let factory = Factory::simulated(40, 2000.0, seed);
    simulator::run(factory, producer, &pace, &AtomicBool::new(false)).unwrap()
}

fn lost(expected: &Expected) -> (u64, u64, u64) {
    let report = expected.compare(&Received::default());
    (report.events, report.lost, report.poison)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_factory_writes_is_read_back_to_the_last_event() {
    let broker = Broker::start();
    broker.create_topic().await;
    let settings = broker.settings.clone();
    tokio::task::spawn_blocking(move || check(&settings))
        .await
        .unwrap();
}

fn check(settings: &KafkaSettings) {
    assert_eq!(simulate(settings, 1), 2000);
    let first = end_positions(settings, TOPIC).unwrap();
    assert_eq!(first.values().sum::<u64>(), 2000);
    assert!(first.values().all(|&end| end > 0), "{first:?}");

    assert_eq!(simulate(settings, 2), 2000);
    let producer = Producer::new(settings, Duration::ZERO).unwrap();
    producer.send(TOPIC, "a", b"no JSON", None).unwrap();
    assert_eq!(producer.finish(common::PATIENCE).unwrap(), 1);

    let end = end_positions(settings, TOPIC).unwrap();
    let all = read(settings, TOPIC, &Positions::new(), &end).unwrap();
    assert_eq!(lost(&all), (4000, 4000, 1));
    let second_half = read(settings, TOPIC, &first, &end).unwrap();
    assert_eq!(lost(&second_half), (2000, 2000, 1));
    let nothing = read(settings, TOPIC, &end, &end).unwrap();
    assert_eq!(lost(&nothing), (0, 0, 0));

    let producer = Producer::new(settings, Duration::ZERO).unwrap();
    let missing = producer.check_topic("no_such_topic").unwrap_err();
    assert!(matches!(missing, ProduceError::NoTopic(_)), "{missing}");
}

#[test]
fn a_wrong_address_is_one_clear_message() {
    let nobody = KafkaSettings::plain(format!("127.0.0.1:{}", common::free_port()));
    let producer = Producer::new(&nobody, Duration::ZERO).unwrap();
    let error = producer.check_topic(TOPIC).unwrap_err().to_string();
    assert!(
        error.contains("no Kafka broker answers at 127.0.0.1:"),
        "{error}"
    );
    assert!(error.contains("KAFKA_BROKER"), "{error}");
}
