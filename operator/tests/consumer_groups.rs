//! What the operator sees of consumer groups with real members on a real broker, and how it scales by that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../client/tests/common/servers.rs"]
mod servers;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use ofa_crds::api::{Autoscaling, AutoscalingStatus};
use ofa_crds::kafka::KafkaSettings;
use ofa_operator::controllers::control_plane::{ControlPlane as _, KafkaControlPlane, Progress};
use ofa_operator::controllers::forwarder_pool::autoscale::{Seen, decide};
use ofa_operator::platform::{InstanceState, Owner, Phase, WorkloadId, WorkloadState};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Longer than a broker's start, or a rebalance, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

const TOPIC: &str = "assets";
const PARTITIONS: u32 = 4;
const RECORDS: u64 = 8;

const CLASSIC: &str = "classic";
const CONSUMER: &str = "consumer";

/// A broker of its own; stopped and its data removed when dropped.
struct Broker {
    child: Child,
    settings: KafkaSettings,
    _data: tempfile::TempDir,
}

impl Broker {
    /// Starts it, with a topic that has some records.
    async fn start() -> Self {
        let (port, controller) = (servers::free_port(), servers::free_port());
        let data = tempfile::tempdir().unwrap();
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let child = Command::new(servers::program("kafka-server"))
            .env("KAFKA_LISTENERS", listeners)
            .env("KAFKA_LOG_DIRS", data.path().join("data"))
            .env("KAFKA_HEAP_OPTS", "-Xms96m -Xmx256m")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kafka-server is installed: run e2e/tools/setup kafka");
        let broker = Self {
            child,
            settings: KafkaSettings::plain(format!("127.0.0.1:{port}")),
            _data: data,
        };
        broker.fill().await;
        broker
    }

    async fn fill(&self) {
        let config = self.settings.client_config().unwrap();
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let topic = NewTopic::new(TOPIC, PARTITIONS as i32, TopicReplication::Fixed(1));
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = admin.create_topics([&topic], &options).await {
            assert!(Instant::now() < deadline, "no topic: {error}");
        }
        let producer: FutureProducer = config.create().unwrap();
        for _ in 0..RECORDS {
            let record: FutureRecord<'_, (), str> = FutureRecord::to(TOPIC).payload("x");
            producer.send(record, PATIENCE).await.unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member of a group, which leaves it, and waits until it has, when dropped.
struct Member {
    ends: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn join(broker: &Broker, group: &str, protocol: &str) -> Self {
        let mut config = broker.settings.client_config().unwrap();
        config
            .set("group.id", group)
            .set("group.protocol", protocol)
            .set("enable.auto.commit", "false");
        if protocol == CLASSIC {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            config.set("heartbeat.interval.ms", "200");
        }
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        let (ends, frozen) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stop, wait) = (Arc::clone(&ends), Arc::clone(&frozen));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if wait.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                } else {
                    let _ = consumer.poll(Duration::from_millis(50));
                }
            }
        });
        Self {
            ends,
            frozen,
            thread: Some(thread),
        }
    }

    /// Whether it lets go of no partition that another is to get.
    fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        tokio::task::block_in_place(|| thread.map(JoinHandle::join));
    }
}

/// The operator's view of one group.
struct View<'a> {
    broker: &'a Broker,
    plane: KafkaControlPlane,
    group: &'a str,
}

impl<'a> View<'a> {
    fn of(broker: &'a Broker, group: &'a str) -> Self {
        Self {
            broker,
            plane: KafkaControlPlane::new("control"),
            group,
        }
    }

    fn now(&self) -> Option<Progress> {
        self.plane
            .progress(&self.broker.settings, TOPIC, self.group)
    }

    async fn until(&self, what: &str, wanted: impl Fn(Progress) -> bool) -> Progress {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.now();
            match seen {
                Some(progress) if wanted(progress) => return progress,
                _ => assert!(Instant::now() < deadline, "never {what}: {seen:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Until all partitions are with so many members.
    async fn shared_by(&self, members: u32) -> Progress {
        let assigned = if members == 0 { 0 } else { PARTITIONS };
        let settled =
            move |it: Progress| (it.members, it.assigned) == (Some(members), Some(assigned));
        let progress = self
            .until(&format!("with {members} members"), settled)
            .await;
        assert_eq!((progress.partitions, progress.lag), (PARTITIONS, RECORDS));
        progress
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_of_both_protocols_are_seen_and_a_pool_is_scaled_by_them() {
    let broker = Arc::new(Broker::start().await);
    let mut scenes = tokio::task::JoinSet::new();
    for protocol in [CLASSIC, CONSUMER] {
        let (first, second) = (Arc::clone(&broker), Arc::clone(&broker));
        scenes.spawn(async move { members_come_and_go(&first, protocol).await });
        scenes.spawn(async move { one_step_for_each_settled_rebalance(&second, protocol).await });
    }
    for old in [CLASSIC, CONSUMER] {
        let broker = Arc::clone(&broker);
        scenes.spawn(async move { members_are_replaced(&broker, old).await });
    }
    scenes.join_all().await;
}

async fn members_come_and_go(broker: &Broker, protocol: &str) {
    let view = View::of(broker, protocol);
    view.shared_by(0).await;
    let first = Member::join(broker, protocol, protocol);
    view.shared_by(1).await;
    let second = Member::join(broker, protocol, protocol);
    view.shared_by(2).await;
    drop(second);
    view.shared_by(1).await;
    drop(first);
    view.shared_by(0).await;
}

/// From one protocol to the other. A classic group has to be empty for that: Kafka refuses to lose what the members'
/// strategy has put down with their membership. To one, members of both protocols share the partitions meanwhile.
async fn members_are_replaced(broker: &Broker, old: &str) {
    let group = format!("replaced-{old}");
    let new = if old == CLASSIC { CONSUMER } else { CLASSIC };
    let view = View::of(broker, &group);
    let one = Member::join(broker, &group, old);
    view.shared_by(1).await;
    let other = Member::join(broker, &group, old);
    let shared = view.shared_by(2).await;
    let classic = if old == CLASSIC { 2 } else { 0 };
    assert_eq!(shared.classic_members, classic);
    if old == CLASSIC {
        drop((one, other));
        view.shared_by(0).await;
        let _one = Member::join(broker, &group, new);
        let _other = Member::join(broker, &group, new);
        view.shared_by(2).await;
        return;
    }
    let _one = Member::join(broker, &group, new);
    view.shared_by(3).await;
    drop(one);
    view.shared_by(2).await;
    let _other = Member::join(broker, &group, new);
    view.shared_by(3).await;
    drop(other);
    view.shared_by(2).await;
}

async fn one_step_for_each_settled_rebalance(broker: &Broker, protocol: &str) {
    let group = format!("scaled-{protocol}");
    let view = View::of(broker, &group);
    let mut pool = Pool::default();
    let first = Member::join(broker, &group, protocol);
    assert_eq!(pool.look(Some(view.shared_by(1).await)), 2);

    first.freeze(true);
    let second = Member::join(broker, &group, protocol);
    let rebalancing = view.until("rebalancing", |it| it.members.is_none()).await;
    assert_eq!(pool.look(Some(rebalancing)), 2, "{protocol}");
    first.freeze(false);
    assert_eq!(pool.look(Some(view.shared_by(2).await)), 3, "{protocol}");
    assert_eq!(pool.look(view.now()), 3, "the third has not joined yet");
    drop(second);
}

/// A pool whose forwarders are all up and act by the newest map, looked at once a minute.
struct Pool {
    replicas: u16,
    before: Option<AutoscalingStatus>,
    now: Timestamp,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            replicas: 1,
            before: None,
            now: Timestamp::UNIX_EPOCH,
        }
    }
}

impl Pool {
    fn look(&mut self, progress: Option<Progress>) -> u16 {
        self.now += SignedDuration::from_mins(1);
        let decided = decide(&Seen {
            limits: &Autoscaling {
                min_replicas: 1,
                max_replicas: 4,
                target_lag: 1,
            },
            replicas: self.replicas,
            forwarders: Some(&forwarders(self.replicas)),
            progress,
            acknowledged: true,
            before: self.before.as_ref(),
            now: self.now,
        });
        self.replicas = decided.desired_replicas;
        self.before = Some(decided);
        self.replicas
    }
}

fn forwarders(count: u16) -> WorkloadState {
    let instance = |ordinal| InstanceState {
        name: format!("pool-{ordinal}"),
        ordinal,
        host: String::new(),
        phase: Phase::Running,
        ready: true,
        current: true,
        restarts: 0,
        stuck: false,
        process: None,
        message: None,
    };
    WorkloadState {
        id: WorkloadId::new("plant", "pool"),
        owner: Owner {
            kind: "ForwarderPool".to_owned(),
            name: "pool".to_owned(),
            uid: String::new(),
        },
        wanted: count,
        instances: (0..count).map(instance).collect(),
        held_back: false,
    }
}
