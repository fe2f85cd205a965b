//! Reads and writes the compacted control topic (see [`crate::control`]).

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};
use thiserror::Error;
use tokio::sync::watch;
use tracing::warn;

use super::control_state::ControlState;
use super::{KafkaSettings, KafkaSettingsError, now_ms};
use crate::control::{Ack, ControlKey, ControlRole, GroupService, MixedPartitions, Wanted};
use crate::shard_map::ShardMap;

/// The topic is a small table: one partition keeps the order of a map and its acknowledgements.
const PARTITION: i32 = 0;

/// How long one request to Kafka may take before it counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the reader waits for the next record before it looks whether it should stop.
const POLL: Duration = Duration::from_millis(100);

/// How long the reader waits before it asks again for a topic or broker that is not there.
const RETRY: Duration = Duration::from_millis(500);

/// Why the control topic could not be used.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The settings are unusable.
    #[error(transparent)]
    Settings(#[from] KafkaSettingsError),
    /// Kafka refused or could not be reached.
    #[error(
        "the control topic {topic} cannot be {what}: {source}; check the broker's address and rights"
    )]
    Kafka {
        /// The topic.
        topic: String,
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: KafkaError,
    },
    /// A value could not be written as JSON.
    #[error("a value for the control topic cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The control topic of one installation.
#[derive(Clone)]
pub struct ControlTopic {
    settings: KafkaSettings,
    topic: String,
    producer: FutureProducer,
}

impl ControlTopic {
    /// Connects lazily: nothing is asked of Kafka yet.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn new(settings: &KafkaSettings, topic: &str) -> Result<Self, ControlError> {
        let mut config = settings.client_config()?;
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0");
        let producer = config
            .create()
            .map_err(|source| failed(topic, "opened", source))?;
        Ok(Self {
            settings: settings.clone(),
            topic: topic.to_owned(),
            producer,
        })
    }

    /// Creates the topic, compacted and with one partition, unless it exists.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub async fn ensure(&self) -> Result<(), ControlError> {
        let admin: AdminClient<DefaultClientContext> = self
            .settings
            .client_config()?
            .create()
            .map_err(|source| self.failed("created", source))?;
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            // A table of a few rows: small segments, compacted soon, keep reading it quick.
            .set("segment.ms", "600000")
            .set("min.cleanable.dirty.ratio", "0.1");
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let results = admin.create_topics([&topic], &options).await;
        for result in results.map_err(|source| self.failed("created", source))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(self.failed("created", KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    /// Writes a pool's map and waits until Kafka has it.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn publish_map(&self, pool: &str, map: &ShardMap) -> Result<(), ControlError> {
        let key = ControlKey::Map {
            pool: pool.to_owned(),
        };
        self.write(&key, Some(&serde_json::to_vec(map)?)).await
    }

    /// Removes a pool's map.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn remove_map(&self, pool: &str) -> Result<(), ControlError> {
        self.write(
            &ControlKey::Map {
                pool: pool.to_owned(),
            },
            None,
        )
        .await
    }

    /// Tells what is known of assets on two partitions of a pool's topic; `None` for nothing.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn publish_mixed(
        &self,
        pool: &str,
        mixed: Option<&MixedPartitions>,
    ) -> Result<(), ControlError> {
        let key = ControlKey::Mixed {
            pool: pool.to_owned(),
        };
        let json = mixed.map(serde_json::to_vec).transpose()?;
        self.write(&key, json.as_deref()).await
    }

    /// Says that a member acts by `epoch`.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn ack(
        &self,
        pool: &str,
        role: ControlRole,
        member: &str,
        epoch: u64,
    ) -> Result<(), ControlError> {
        let ack = Ack {
            epoch,
            at_ms: now_ms(),
        };
        self.write(
            &ack_key(pool, role, member),
            Some(&serde_json::to_vec(&ack)?),
        )
        .await
    }

    /// Says that a member is gone.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn leave(
        &self,
        pool: &str,
        role: ControlRole,
        member: &str,
    ) -> Result<(), ControlError> {
        self.write(&ack_key(pool, role, member), None).await
    }

    /// Says where a group's service is; `None`: there is no such group any more.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn publish_group(
        &self,
        topic: &str,
        service: Option<&GroupService>,
    ) -> Result<(), ControlError> {
        let key = ControlKey::Group {
            topic: topic.to_owned(),
        };
        let value = service.map(serde_json::to_vec).transpose()?;
        self.write(&key, value.as_deref()).await
    }

    /// Says that `member` needs a group's service now.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn want(&self, topic: &str, member: &str) -> Result<(), ControlError> {
        let wanted = Wanted { at_ms: now_ms() };
        let value = serde_json::to_vec(&wanted)?;
        self.write(&wanted_key(topic, member), Some(&value)).await
    }

    /// Forgets that `member` needed a group's service.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn forget_wanted(&self, topic: &str, member: &str) -> Result<(), ControlError> {
        self.write(&wanted_key(topic, member), None).await
    }

    /// Reads the topic from its beginning and goes on for as long as a receiver is held.
    ///
    /// A topic or broker that is not there is waited for.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn follow(&self) -> Result<watch::Receiver<ControlState>, ControlError> {
        let mut config = self.settings.client_config()?;
        config
            // librdkafka wants a group's name even where, as here, no group is joined.
            .set("group.id", "ofa-control-reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .set("topic.metadata.refresh.interval.ms", "5000");
        let consumer: BaseConsumer = config
            .create()
            .map_err(|source| self.failed("read", source))?;
        let (sender, receiver) = watch::channel(ControlState::default());
        let topic = self.topic.clone();
        std::thread::spawn(move || read(&consumer, &topic, &sender));
        Ok(receiver)
    }

    async fn write(&self, key: &ControlKey, value: Option<&[u8]>) -> Result<(), ControlError> {
        let key = key.to_string();
        let record = FutureRecord {
            payload: value,
            ..FutureRecord::to(&self.topic)
        };
        let record = record.key(&key).partition(PARTITION);
        match self.producer.send(record, REQUEST_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err((source, _)) => Err(self.failed("written", source)),
        }
    }

    fn failed(&self, what: &'static str, source: KafkaError) -> ControlError {
        failed(&self.topic, what, source)
    }
}

fn failed(topic: &str, what: &'static str, source: KafkaError) -> ControlError {
    ControlError::Kafka {
        topic: topic.to_owned(),
        what,
        source,
    }
}

fn ack_key(pool: &str, role: ControlRole, member: &str) -> ControlKey {
    ControlKey::Ack {
        pool: pool.to_owned(),
        role,
        member: member.to_owned(),
    }
}

fn wanted_key(topic: &str, member: &str) -> ControlKey {
    ControlKey::Wanted {
        topic: topic.to_owned(),
        member: member.to_owned(),
    }
}

fn read(consumer: &BaseConsumer, topic: &str, state: &watch::Sender<ControlState>) {
    let Some(end) = wait_for_topic(consumer, topic, state) else {
        return;
    };
    let mut assignment = TopicPartitionList::new();
    let assigned = assignment
        .add_partition_offset(topic, PARTITION, Offset::Beginning)
        .and_then(|()| consumer.assign(&assignment));
    if let Err(error) = assigned {
        warn!(topic, %error, "the control topic cannot be read");
        return;
    }
    let mut next = 0;
    // One warning for each time the broker goes away, not one for each attempt to reach it.
    let mut said = false;
    while !state.is_closed() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                said = false;
                next = message.offset() + 1;
                let key = message.key().unwrap_or_default();
                state.send_if_modified(|state| state.apply(key, message.payload()));
            }
            Some(Err(error)) if !said => {
                warn!(topic, %error, "reading the control topic goes on after an error");
                said = true;
            }
            Some(Err(_)) => {}
            None => {}
        }
        let position = consumer_position(consumer, topic).unwrap_or(next).max(next);
        state.send_if_modified(|state| {
            !state.caught_up && position >= end && {
                state.caught_up = true;
                true
            }
        });
    }
}

/// The reader's position, which also passes what compaction has removed.
fn consumer_position(consumer: &BaseConsumer, topic: &str) -> Option<i64> {
    consumer
        .position()
        .ok()?
        .find_partition(topic, PARTITION)?
        .offset()
        .to_raw()
        .filter(|&raw| raw >= 0)
}

/// The topic's end as soon as it exists; `None` when nobody waits any more.
fn wait_for_topic(
    consumer: &BaseConsumer,
    topic: &str,
    state: &watch::Sender<ControlState>,
) -> Option<i64> {
    let mut said = false;
    while !state.is_closed() {
        match consumer.fetch_watermarks(topic, PARTITION, REQUEST_TIMEOUT) {
            Ok((_, end)) => return Some(end),
            Err(error) if !said => {
                warn!(topic, %error, "the control topic cannot be read yet; trying on");
                said = true;
            }
            Err(_) => {}
        }
        std::thread::sleep(RETRY);
    }
    None
}
