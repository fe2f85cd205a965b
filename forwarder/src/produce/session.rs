//! A transactional producer's conversations: with whom, and again when somebody else answers now.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::{FindCoordinatorRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use ofa_crds::kafka::KafkaSettings;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::accumulator::TopicId;
use super::batch::ProducerIdentity;
use super::error::{Refusal, StepError};
use super::partitions::Partitions;
use crate::kafka::{
    BrokerError, Connection, METADATA_VERSIONS, Security, addresses, brokers_of, metadata_request,
};

/// Versions of the `FindCoordinator` request that are spoken: one coordinator at a time, of groups and of transactions.
const FIND_COORDINATOR_VERSIONS: RangeInclusive<i16> = 1..=3;

/// Rest before a coordinator is asked again, doubled with each time: the markers of the last transaction are on their way for some
/// milliseconds, or for a second where it was large.
const REST: Duration = Duration::from_millis(10);
const MAX_REST: Duration = Duration::from_millis(100);

/// A connection that was not used for this long is made anew: brokers close it after ten minutes
/// (`connections.max.idle.ms`), what is between may do so after one.
const IDLE: Duration = Duration::from_secs(45);

/// What is written, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct ProducerSettings {
    pub(crate) kafka: KafkaSettings,
    /// The name by which one process fences the one before it; also for the brokers' logs.
    pub(crate) transactional_id: String,
    /// The consumer group whose offsets are committed with what is written.
    pub(crate) consumer_group: String,
    /// How long a transaction may take.
    pub(crate) transaction_timeout: Duration,
}

/// Whom a request of a transaction is for, in the numbers of `FindCoordinator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coordinator {
    Group = 0,
    Transaction = 1,
}

/// One producer. Its steps are in [`super::transaction`] and [`super::write`].
pub(crate) struct Session {
    pub(super) settings: ProducerSettings,
    /// Who this is for Kafka, once it was asked.
    pub(super) identity: Option<ProducerIdentity>,
    pub(super) partitions: Partitions,
    /// Whether the answer to a request was lost that may still be carried out.
    pub(super) is_doubtful: bool,
    security: Security,
    /// `host:port` of each broker.
    brokers: BTreeMap<i32, String>,
    connections: HashMap<String, (Connection, Instant)>,
    coordinators: BTreeMap<Coordinator, String>,
    pub(super) problem: Problem,
}

/// Why a step is still being tried, if it has failed.
pub(crate) type Problem = Arc<Mutex<Option<String>>>;

impl Session {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(crate) fn new(settings: ProducerSettings) -> Result<Self, BrokerError> {
        Ok(Self {
            security: Security::new(&settings.kafka)?,
            settings,
            identity: None,
            partitions: Partitions::default(),
            is_doubtful: false,
            brokers: BTreeMap::new(),
            connections: HashMap::new(),
            coordinators: BTreeMap::new(),
            problem: Problem::default(),
        })
    }

    pub(crate) fn problem(&self) -> Problem {
        self.problem.clone()
    }

    /// Asks a coordinator until it has an answer that stands by what `judge` says.
    pub(super) async fn ask_coordinator<R: Request>(
        &mut self,
        coordinator: Coordinator,
        request: &R,
        versions: RangeInclusive<i16>,
        judge: impl Fn(&R::Response) -> Result<(), Refusal>,
    ) -> Result<R::Response, StepError> {
        let mut rest = REST;
        loop {
            let asked = self.ask_once(coordinator, request, versions.clone()).await;
            let answered = asked.and_then(|answer| judge(&answer).map(|()| answer));
            let refusal = match answered {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Final(error)) => return Err(error),
                Err(refusal) => refusal,
            };
            if let Refusal::Elsewhere(_) = refusal {
                self.coordinators.remove(&coordinator);
                rest = MAX_REST;
            }
            *self.problem.lock() = Some(refusal.to_string());
            sleep(rest).await;
            rest = (2 * rest).min(MAX_REST);
        }
    }

    async fn ask_once<R: Request>(
        &mut self,
        coordinator: Coordinator,
        request: &R,
        versions: RangeInclusive<i16>,
    ) -> Result<R::Response, Refusal> {
        let address = match self.coordinators.get(&coordinator) {
            Some(address) => address.clone(),
            None => self.find(coordinator).await?,
        };
        let asked = self.ask(&address, request, versions).await;
        self.is_doubtful |= asked.is_err();
        asked.map_err(|error| Refusal::of_connection(&error))
    }

    async fn find(&mut self, coordinator: Coordinator) -> Result<String, Refusal> {
        let key = match coordinator {
            Coordinator::Group => &self.settings.consumer_group,
            Coordinator::Transaction => &self.settings.transactional_id,
        };
        let request = FindCoordinatorRequest::default()
            .with_key(StrBytes::from_string(key.clone()))
            .with_key_type(coordinator as i8);
        let asked = self.ask_any(&request, FIND_COORDINATOR_VERSIONS).await;
        let answer = asked.map_err(|error| Refusal::of_connection(&error))?;
        if let Some(error) = answer.error_code.err() {
            return Err(Refusal::of(error));
        }
        let address = format!("{}:{}", answer.host, answer.port);
        self.coordinators.insert(coordinator, address.clone());
        Ok(address)
    }

    async fn ask_any<R: Request>(
        &mut self,
        request: &R,
        versions: RangeInclusive<i16>,
    ) -> Result<R::Response, BrokerError> {
        let mut addresses = addresses(&self.brokers, &self.settings.kafka);
        // One that has answered lately will.
        addresses.sort_by_key(|address| !self.connections.contains_key(address));
        let mut last = String::new();
        for address in addresses {
            match self.ask(&address, request, versions.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(BrokerError::NoBroker {
            brokers: self.settings.kafka.brokers.clone(),
            last,
        })
    }

    async fn ask<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        versions: RangeInclusive<i16>,
    ) -> Result<R::Response, BrokerError> {
        let connection = self.take_connection(address);
        let mut connection = self.open(address, connection).await?;
        // One that has failed does not come back.
        let answer = connection.call(request, versions, Duration::ZERO).await?;
        self.keep_connection(address, connection);
        Ok(answer)
    }

    fn take_connection(&mut self, address: &str) -> Option<Connection> {
        let (connection, used) = self.connections.remove(address)?;
        (used.elapsed() < IDLE).then_some(connection)
    }

    fn keep_connection(&mut self, address: &str, connection: Connection) {
        let used = (connection, Instant::now());
        self.connections.insert(address.to_owned(), used);
    }

    async fn open(
        &self,
        address: &str,
        connection: Option<Connection>,
    ) -> Result<Connection, BrokerError> {
        match connection {
            Some(connection) => Ok(connection),
            None => {
                let name = &self.settings.transactional_id;
                Connection::open(address, name, &self.security).await
            }
        }
    }

    /// Sends each broker its request, all at the same time.
    pub(super) async fn ask_brokers<R: Request>(
        &mut self,
        requests: BTreeMap<i32, R>,
        versions: RangeInclusive<i16>,
        patience: Duration,
    ) -> Vec<(i32, Result<R::Response, BrokerError>)> {
        let mut prepared = Vec::with_capacity(requests.len());
        for (broker, request) in requests {
            let address = self.brokers.get(&broker).cloned().unwrap_or_default();
            let connection = self.take_connection(&address);
            prepared.push((broker, address, connection, request));
        }
        let session = &*self;
        let ask = async |(broker, address, connection, request): (i32, String, _, R)| {
            let asked = async {
                let mut connection = session.open(&address, connection).await?;
                let answer = connection
                    .call(&request, versions.clone(), patience)
                    .await?;
                Ok((connection, answer))
            };
            (broker, asked.await, address)
        };
        let answers = join_all(prepared.into_iter().map(ask)).await;
        let keep = |(broker, answer, address): (i32, Result<_, BrokerError>, String)| {
            let answer = answer.map(|(connection, answer)| {
                self.keep_connection(&address, connection);
                answer
            });
            (broker, answer)
        };
        answers.into_iter().map(keep).collect()
    }

    /// Asks who leads the partitions of these topics.
    pub(super) async fn find_leaders(
        &mut self,
        topics: BTreeMap<TopicName, TopicId>,
    ) -> Result<(), BrokerError> {
        let request = metadata_request(topics.keys().cloned());
        let answer = self.ask_any(&request, METADATA_VERSIONS).await?;
        self.brokers = brokers_of(&answer);
        self.connections
            .retain(|_, (_, used)| used.elapsed() < IDLE);
        for topic in answer.topics {
            let Some(id) = topic.name.and_then(|name| topics.get(&name)) else {
                continue;
            };
            for partition in topic.partitions {
                let Ok(index) = usize::try_from(partition.partition_index) else {
                    continue;
                };
                let leader = Some(partition.leader_id.0);
                let leader = leader.filter(|it| self.brokers.contains_key(it));
                self.partitions.of(*id, index).leader = leader;
            }
        }
        Ok(())
    }
}
