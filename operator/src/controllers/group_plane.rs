//! Kafka as the controller of groups uses it: which groups there are, where their services are, who needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ofa_crds::kafka::{ControlError, ControlState, DirectoryReader, KafkaSettings};
use ofa_crds::{GroupName, GroupService, UnsLevel};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::watch;

use super::control_plane::{ControlPlaneError, KafkaControlPlane};
use super::news::{News, Subject};
use super::partitioning::{self, Partitioning};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a service has become idle: nothing else tells.
const IDLE_LOOK: Duration = Duration::from_secs(2);

/// How old a look at the producers' partitioner may be: it changes with a program's settings only.
const PARTITIONING_EVERY: Duration = Duration::from_secs(60);

/// Where groups are found.
#[derive(Debug, Clone)]
pub struct GroupSource {
    /// How the operator reaches Kafka.
    pub kafka: KafkaSettings,
    /// The UNS map.
    pub map_topic: String,
    /// The level.
    pub level: String,
}

impl GroupSource {
    /// What there is news of when the groups change.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject::Level {
            map_topic: self.map_topic.clone(),
            level: self.level.clone(),
        }
    }
}

/// Kafka as the controller of groups uses it.
#[async_trait]
pub trait GroupPlane: Send + Sync {
    /// The level's values and how many assets have each; `None` until the map was read to its end.
    ///
    /// # Errors
    /// When the settings are unusable.
    fn groups(
        &self,
        source: &GroupSource,
    ) -> Result<Option<BTreeMap<GroupName, u64>>, ControlPlaneError>;

    /// What stands on the control topic; `None` until it was read to its end.
    ///
    /// # Errors
    /// When the settings are unusable.
    fn table(&self, kafka: &KafkaSettings) -> Result<Option<ControlState>, ControlPlaneError>;

    /// Says where a group's service is; `None`: there is none any more.
    ///
    /// # Errors
    /// When Kafka does not take it.
    async fn publish_service(
        &self,
        kafka: &KafkaSettings,
        topic: &str,
        service: Option<&GroupService>,
    ) -> Result<(), ControlPlaneError>;

    /// Forgets who needed a group's service.
    ///
    /// # Errors
    /// When Kafka does not take it.
    async fn forget_wanted(
        &self,
        kafka: &KafkaSettings,
        topic: &str,
    ) -> Result<(), ControlPlaneError>;

    /// Deletes a topic; one that is not there is deleted.
    ///
    /// # Errors
    /// When Kafka refuses.
    async fn delete_topic(
        &self,
        kafka: &KafkaSettings,
        topic: &str,
    ) -> Result<(), ControlPlaneError>;

    /// Whether the newest events of a topic lie where murmur2 puts them, as far as was seen a short time ago.
    fn partitioning(&self, kafka: &KafkaSettings, topic: &str) -> Option<Partitioning>;
}

/// What is kept for each source and topic that was asked for.
#[derive(Default)]
pub(super) struct Known {
    directories: BTreeMap<String, DirectoryReader>,
    partitioning: BTreeMap<String, (Instant, Option<Partitioning>)>,
    ticking: bool,
}

impl KafkaControlPlane {
    fn directory(&self, source: &GroupSource) -> Result<DirectoryReader, ControlPlaneError> {
        let key = format!("{source:?}");
        let mut known = self.groups.lock();
        if let Some(reader) = known.directories.get(&key) {
            return Ok(reader.clone());
        }
        let strategy = UnsLevel::every_value(source.level.as_str());
        let reader = DirectoryReader::follow(&source.kafka, &source.map_topic, strategy)?;
        let (mut changes, news) = (reader.news.clone(), self.news.clone());
        let subject = source.subject();
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                news.tell(News::Of(subject.clone()));
                // Thousands of assets that register together are one piece of news.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        known.directories.insert(key, reader.clone());
        Ok(reader)
    }

    /// Has the controllers look from time to time while any service might fall asleep.
    fn tick(&self, state: watch::Receiver<ControlState>) {
        let mut known = self.groups.lock();
        if known.ticking {
            return;
        }
        known.ticking = true;
        let news = self.news.clone();
        tokio::spawn(async move {
            while state.has_changed().is_ok() {
                tokio::time::sleep(IDLE_LOOK).await;
                let state = state.borrow();
                // Of many members that need one service there is one piece of news.
                let topics: BTreeSet<&String> =
                    state.wanted.keys().map(|(topic, _)| topic).collect();
                for topic in topics {
                    news.tell(News::Of(Subject::Service(topic.clone())));
                }
            }
        });
    }
}

#[async_trait]
impl GroupPlane for KafkaControlPlane {
    fn groups(
        &self,
        source: &GroupSource,
    ) -> Result<Option<BTreeMap<GroupName, u64>>, ControlPlaneError> {
        let reader = self.directory(source)?;
        let directory = reader.directory.read();
        if !directory.is_caught_up() {
            return Ok(None);
        }
        let counted = directory.groups();
        Ok(Some(
            counted
                .map(|(group, assets)| (group.clone(), assets as u64))
                .collect(),
        ))
    }

    fn table(&self, kafka: &KafkaSettings) -> Result<Option<ControlState>, ControlPlaneError> {
        let followed = self.follow(kafka)?;
        self.tick(followed.state.clone());
        let state = followed.state.borrow();
        Ok(state.caught_up.then(|| state.clone()))
    }

    async fn publish_service(
        &self,
        kafka: &KafkaSettings,
        topic: &str,
        service: Option<&GroupService>,
    ) -> Result<(), ControlPlaneError> {
        let mut followed = self.follow(kafka)?;
        followed.topic.publish_group(topic, service).await?;
        // What was written is read before anybody decides by it again.
        let arrived = followed
            .state
            .wait_for(|state| state.groups.get(topic) == service);
        match tokio::time::timeout(PATIENCE, arrived).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ControlPlaneError::NoAnswer(kafka.brokers.clone())),
        }
    }

    async fn forget_wanted(
        &self,
        kafka: &KafkaSettings,
        topic: &str,
    ) -> Result<(), ControlPlaneError> {
        let followed = self.follow(kafka)?;
        let members: Vec<String> = {
            let state = followed.state.borrow();
            let wanted = state.wanted_by(topic);
            wanted.map(|(member, _)| member.to_owned()).collect()
        };
        for member in members {
            followed.topic.forget_wanted(topic, &member).await?;
        }
        Ok(())
    }

    async fn delete_topic(
        &self,
        kafka: &KafkaSettings,
        topic: &str,
    ) -> Result<(), ControlPlaneError> {
        let failed = |source| ControlPlaneError::Kafka {
            brokers: kafka.brokers.clone(),
            source,
        };
        let config = kafka.client_config().map_err(ControlError::from)?;
        let admin: AdminClient<DefaultClientContext> = config.create().map_err(failed)?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let deleted = admin.delete_topics(&[topic], &options).await;
        for result in deleted.map_err(failed)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((_, code)) => return Err(failed(rdkafka::error::KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    fn partitioning(&self, kafka: &KafkaSettings, topic: &str) -> Option<Partitioning> {
        let key = format!("{kafka:?} {topic}");
        let mut known = self.groups.lock();
        let (at, answer) = known
            .partitioning
            .get(&key)
            .map_or((None, None), |(at, answer)| (Some(*at), *answer));
        if at.is_none_or(|at| at.elapsed() >= PARTITIONING_EVERY) {
            known
                .partitioning
                .insert(key.clone(), (Instant::now(), answer));
            let (kafka, topic) = (kafka.clone(), topic.to_owned());
            let (groups, news) = (Arc::clone(&self.groups), self.news.clone());
            tokio::task::spawn_blocking(move || {
                let seen = partitioning::look(&kafka, &topic)
                    .inspect_err(
                        |error| tracing::debug!(topic, %error, "events cannot be looked at"),
                    )
                    .ok();
                groups
                    .lock()
                    .partitioning
                    .insert(key, (Instant::now(), seen));
                if seen != answer {
                    news.tell(News::Of(Subject::Partitioning(topic)));
                }
            });
        }
        answer
    }
}
