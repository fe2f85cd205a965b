//! A real broker, and what a scenario asks of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ofa_client::audit::kafka as audit;
use ofa_crds::kafka::KafkaSettings;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::process::Process;
use crate::{ports, report, tools, wait};

/// How long one request may take, also while the broker's JVM warms up on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a broker may take from its start to the first answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A small broker: scenarios hold some hundred thousand records of a few hundred bytes.
const HEAP: &str = "-Xms96m -Xmx256m";

/// Offset by partition: where a partition begins or ends, or what a group has committed.
pub type Positions = audit::Positions;

/// One record to write; key and value may be anything.
#[derive(Debug, Clone)]
pub struct Record {
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Partition.
    pub partition: i32,
}

/// A broker of its own, with its data in a temporary folder.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    listener: SocketAddr,
    controller: SocketAddr,
    /// Protocol and address of further listeners.
    further: Vec<(&'static str, SocketAddr)>,
    /// Names and values of further environment variables.
    variables: Vec<(String, String)>,
    process: Option<Process>,
}

impl Broker {
    /// Starts a broker with its data and log in `folder` and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::listening(ports::free()?, folder).await
    }

    /// Starts a broker that listens on another address of this machine than its loopback.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_on(address: IpAddr, folder: &Path) -> Result<Self> {
        let listener = SocketAddr::new(address, ports::free()?.port());
        Self::listening(listener, folder).await
    }

    async fn listening(listener: SocketAddr, folder: &Path) -> Result<Self> {
        let mut broker = Self {
            folder: folder.to_owned(),
            listener,
            controller: ports::free()?,
            further: Vec::new(),
            variables: Vec::new(),
            process: None,
        };
        broker.run().await?;
        Ok(broker)
    }

    /// Has the broker listen by this protocol too, from its next start on. Returns where.
    ///
    /// # Errors
    /// When no port is free.
    pub fn listen(&mut self, protocol: &'static str) -> Result<SocketAddr> {
        let address = ports::free()?;
        self.further.push((protocol, address));
        Ok(address)
    }

    /// Has the broker take a setting from its next start on, by the name of its environment variable.
    pub fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.variables.push((variable.to_owned(), value.into()));
    }

    /// The same broker without the right over its process: to ask it while another restarts it.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            listener: self.listener,
            controller: self.controller,
            further: self.further.clone(),
            variables: self.variables.clone(),
            process: None,
        }
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn address(&self) -> String {
        self.listener.to_string()
    }

    /// How a client of ours connects.
    #[must_use]
    pub fn settings(&self) -> KafkaSettings {
        KafkaSettings::plain(self.address())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the broker does not run")?
            .kill()
    }

    /// Starts it again, on the same addresses and with the same data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn run(&mut self) -> Result<()> {
        let mut command = tools::server("kafka-server")?;
        let own = [
            ("PLAINTEXT", self.listener),
            ("CONTROLLER", self.controller),
        ];
        let listeners = own.iter().chain(&self.further);
        let listeners = listeners.map(|(protocol, address)| format!("{protocol}://{address}"));
        command.env("KAFKA_LISTENERS", listeners.collect::<Vec<_>>().join(","));
        command.envs(self.variables.iter().cloned());
        command.env("KAFKA_LOG_DIRS", self.folder.join("data"));
        command.env("KAFKA_HEAP_OPTS", HEAP);
        self.process = Some(Process::start("kafka", &self.folder, command)?);
        wait::until("Kafka to answer", START_TIMEOUT, async || self.is_up()).await
    }

    fn is_up(&mut self) -> Result<bool> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.ended()?
        {
            anyhow::bail!("Kafka has ended ({status}): {}", process.tail(10));
        }
        // The port alone opens long before the broker is let into its cluster.
        Ok(std::net::TcpStream::connect(self.listener).is_ok()
            && blocking(|| {
                self.consumer("ofa-e2e")?
                    .fetch_metadata(None, Duration::from_secs(2))
                    .context("metadata")
            })
            .is_ok_and(|metadata| !metadata.brokers().is_empty()))
    }

    /// The process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When Kafka refuses.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(topic, partitions, &[]).await
    }

    /// Creates a topic with settings of its own.
    ///
    /// # Errors
    /// When Kafka refuses.
    pub async fn create_topic_with(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.settings().client_config()?.create()?;
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            // As OpenFactory's own topics allow for the largest events.
            .set("max.message.bytes", "10485760");
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        for result in admin.create_topics([&new], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => anyhow::bail!("{topic} cannot be created: {code}"),
            }
        }
        // Known to the controller before it is to the broker's clients.
        wait::until("the new topic", REQUEST_TIMEOUT, async || {
            Ok(self
                .ends(topic)
                .is_ok_and(|ends| i32::try_from(ends.len()) == Ok(partitions)))
        })
        .await
    }

    /// Writes records in order and waits until Kafka has them.
    ///
    /// # Errors
    /// When one is not written.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Result<()> {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.producer_config()?.create()?;
        for record in records {
            let mut out = BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition);
            out.key = record.key.as_deref();
            out.payload = record.value.as_deref();
            producer
                .send(out)
                .map_err(|(error, _)| anyhow::Error::new(error).context("a record is refused"))?;
        }
        blocking(|| producer.flush(REQUEST_TIMEOUT)).context("records are not written")
    }

    /// A producer that loses, repeats and reorders nothing, whatever happens to the broker.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn producer_config(&self) -> Result<ClientConfig> {
        let mut config = self.settings().client_config()?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("message.max.bytes", "10485760")
            .set("message.timeout.ms", "120000");
        Ok(config)
    }

    /// The offset behind the last record of each partition.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn ends(&self, topic: &str) -> Result<Positions> {
        Ok(blocking(|| audit::end_positions(&self.settings(), topic))?)
    }

    /// What must be received of everything the topic holds, up to `to`.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub fn expected(&self, topic: &str, to: &Positions) -> Result<ofa_client::audit::Expected> {
        Ok(blocking(|| {
            audit::read(&self.settings(), topic, &BTreeMap::new(), to)
        })?)
    }

    /// What a group has committed; a partition without commit is left out.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Result<Positions> {
        let mut list = TopicPartitionList::new();
        for &partition in self.ends(topic)?.keys() {
            list.add_partition(topic, i32::try_from(partition)?);
        }
        let committed = blocking(|| {
            self.consumer(group)?
                .committed_offsets(list, REQUEST_TIMEOUT)
                .context("committed offsets")
        })?;
        let mut positions = Positions::new();
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset() {
                positions.insert(u32::try_from(element.partition())?, u64::try_from(offset)?);
            }
        }
        Ok(positions)
    }

    /// Waits until a group has committed everything that stands in a topic now, and returns where that ends.
    ///
    /// # Errors
    /// When it has not by then.
    pub async fn everything_committed(
        &self,
        group: &str,
        topic: &str,
        timeout: Duration,
    ) -> Result<Positions> {
        let ends = self.ends(topic)?;
        let mut committed = Positions::new();
        wait::until("everything to be committed", timeout, async || {
            committed = self.committed(group, topic)?;
            Ok(report::distance(&committed, &ends) == 0)
        })
        .await
        .with_context(|| format!("the topic ends at {ends:?}, committed is {committed:?}"))?;
        Ok(ends)
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.settings().client_config()?;
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        Ok(config.create()?)
    }
}

/// Runs what blocks without holding up the other tasks of the scenario.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::task::block_in_place(work),
        Err(_) => work(),
    }
}
