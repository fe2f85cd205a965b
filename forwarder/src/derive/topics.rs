//! Makes sure that the groups' topics and the changelog are there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ofa_crds::kafka::KafkaSettings;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::changelog;
use crate::consume::SourceError;

/// Topics created in one request: few enough for a broker to do within the time-out.
const AT_ONCE: usize = 100;

/// A source's record may be far larger than its batch, which is compressed, and has to be taken nevertheless. Brokers take requests
/// of 100 MiB.
const MAX_MESSAGE_BYTES: (&str, &str) = ("max.message.bytes", "67108864");

/// How long one request to Kafka may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a topic just created may be unknown to the broker that is asked.
const PROPAGATION: Duration = Duration::from_secs(30);

/// Rest before it is asked again, each twice the one before: an answer tells of all topics that there are.
const PROPAGATION_REST: Duration = Duration::from_millis(50);
const MAX_PROPAGATION_REST: Duration = Duration::from_secs(1);

/// What a derived topic is like where it has to be created.
#[derive(Debug, Clone)]
pub(crate) struct TopicSettings {
    /// Topic whose number of partitions the derived ones get.
    pub(crate) source: String,
    pub(crate) partitions: Option<u16>,
    pub(crate) retention_ms: Option<u64>,
}

/// Creates topics and counts their partitions.
pub(crate) struct Topics {
    admin: AdminClient<DefaultClientContext>,
    settings: TopicSettings,
    runtime: Handle,
}

impl Topics {
    pub(crate) fn new(
        kafka: &KafkaSettings,
        settings: TopicSettings,
        runtime: Handle,
    ) -> Result<Self, SourceError> {
        let admin = kafka.client_config()?.create();
        let failed = |source| SourceError::Client {
            what: "create topics",
            source,
        };
        Ok(Self {
            admin: admin.map_err(failed)?,
            settings,
            runtime,
        })
    }

    /// Creates those of `names` that are missing. Returns the number of partitions of each, in order.
    pub(crate) fn ensure(&self, names: &[String]) -> Result<Vec<i32>, KafkaError> {
        let mut known = self.partitions_of_all()?;
        let missing: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| !known.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            let partitions = self.partitions_to_create(&known)?;
            let retention = self.settings.retention_ms.map(|ms| ms.to_string());
            let mut config = vec![("cleanup.policy", "delete"), MAX_MESSAGE_BYTES];
            config.extend(retention.as_deref().map(|ms| ("retention.ms", ms)));
            for names in missing.chunks(AT_ONCE) {
                match self.create(names, partitions, &config) {
                    // Some clusters have a policy about sizes.
                    Err(KafkaError::AdminOp(
                        code
                        @ (RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::PolicyViolation),
                    )) => {
                        warn!(%code, "topics cannot be created with room for large records; creating them without");
                        config.retain(|setting| *setting != MAX_MESSAGE_BYTES);
                        self.create(names, partitions, &config)?;
                    }
                    created => created?,
                }
            }
            known = self.await_all(names)?;
        }
        Ok(names
            .iter()
            .map(|name| known.get(name).copied().unwrap_or(1))
            .collect())
    }

    fn partitions_to_create(&self, known: &HashMap<String, i32>) -> Result<i32, KafkaError> {
        let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        match self.settings.partitions {
            Some(partitions) => Ok(partitions.into()),
            None => known.get(&self.settings.source).copied().ok_or(unknown),
        }
    }

    /// Creates the changelog if it is missing.
    pub(crate) fn ensure_changelog(&self, name: &str) -> Result<(), KafkaError> {
        if !self.partitions_of_all()?.contains_key(name) {
            let config = [("cleanup.policy", "compact")];
            self.create(&[name], changelog::PARTITIONS, &config)?;
            self.await_all(&[name.to_owned()])?;
        }
        Ok(())
    }

    fn create(
        &self,
        names: &[&str],
        partitions: i32,
        config: &[(&str, &str)],
    ) -> Result<(), KafkaError> {
        let topic = |name| {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
            config
                .iter()
                .fold(topic, |topic, (key, value)| topic.set(key, value))
        };
        let wanted: Vec<NewTopic<'_>> = names.iter().copied().map(topic).collect();
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        for result in self
            .runtime
            .block_on(self.admin.create_topics(&wanted, &options))?
        {
            match result {
                Ok(topic) => info!(topic, partitions, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code)),
            }
        }
        Ok(())
    }

    fn await_all(&self, names: &[String]) -> Result<HashMap<String, i32>, KafkaError> {
        let (deadline, mut rest) = (Instant::now() + PROPAGATION, PROPAGATION_REST);
        loop {
            let known = self.partitions_of_all()?;
            if names.iter().all(|name| known.contains_key(name)) {
                return Ok(known);
            }
            if Instant::now() >= deadline {
                let code = RDKafkaErrorCode::UnknownTopicOrPartition;
                return Err(KafkaError::MetadataFetch(code));
            }
            std::thread::sleep(rest);
            rest = (2 * rest).min(MAX_PROPAGATION_REST);
        }
    }

    fn partitions_of_all(&self) -> Result<HashMap<String, i32>, KafkaError> {
        let metadata = self.admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
        let counted = metadata
            .topics()
            .iter()
            .filter(|topic| !topic.partitions().is_empty());
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        Ok(counted
            .map(|topic| (topic.name().to_owned(), count(topic.partitions().len())))
            .collect())
    }
}
