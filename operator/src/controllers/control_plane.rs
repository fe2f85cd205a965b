//! Kafka as the operator uses it: shard maps out, acknowledgements and positions in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ofa_crds::kafka::{ControlError, ControlState, ControlTopic, FollowError, KafkaSettings};
use ofa_crds::{ControlRole, MixedPartitions, ShardMap};
use parking_lot::Mutex;
use rdkafka::error::KafkaError;
use thiserror::Error;
use tokio::sync::watch;

use super::news::{Board, Listener, of_control_topic};
pub use super::progress::Progress;
use super::progress::Progresses;
use super::settling::SeenMap;
pub use super::settling::Settling;

/// How long a question may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Pause before the control topic is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why Kafka could not be used.
#[derive(Debug, Error)]
pub enum ControlPlaneError {
    /// The control topic refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The UNS map cannot be followed.
    #[error(transparent)]
    Map(#[from] FollowError),
    /// Kafka refused.
    #[error("Kafka at {brokers} refuses: {source}")]
    Kafka {
        /// Who was asked.
        brokers: String,
        /// Why.
        source: KafkaError,
    },
    /// Nobody answered.
    #[error(
        "Kafka at {0} has not answered yet; if that stays so, check that it runs and that spec.kafka.bootstrapServers is right"
    )]
    NoAnswer(String),
    /// The topic does not exist.
    #[error("topic {0} does not exist; create it")]
    NoTopic(String),
}

/// A pool and how it reaches Kafka.
#[derive(Debug, Clone)]
pub struct PoolRef {
    /// `<namespace>.<name>`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is being deleted.
    pub deleted: bool,
    /// Where its Kafka is, as the operator reaches it.
    pub kafka: KafkaSettings,
}

/// What stands on the control topic for a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Published {
    /// The newest map.
    pub map: Option<Arc<ShardMap>>,
    /// The epoch each forwarder acts by.
    pub acknowledged: BTreeMap<String, u64>,
    /// Assets that were found on two partitions of the topic.
    pub mixed: Option<MixedPartitions>,
}

/// Kafka as the operator uses it.
#[async_trait]
pub trait ControlPlane: Send + Sync {
    /// What stands on the control topic for a pool.
    ///
    /// # Errors
    /// When the whole topic could not be read.
    async fn published(&self, pool: &PoolRef) -> Result<Published, ControlPlaneError>;

    /// Publishes a pool's map and waits until Kafka has it.
    ///
    /// # Errors
    /// When Kafka does not take it.
    async fn publish(&self, pool: &PoolRef, map: &ShardMap) -> Result<(), ControlPlaneError>;

    /// Removes a pool's map and the acknowledgements of members that are gone.
    ///
    /// # Errors
    /// When Kafka does not take it.
    async fn withdraw(&self, pool: &PoolRef) -> Result<(), ControlPlaneError>;

    /// How far members are with a pool's newest map. A control plane that routers do not follow has none.
    fn settling(&self, _pool: &PoolRef) -> Settling {
        Settling::default()
    }

    /// Withdraws the acknowledgement of a member that is gone. A control plane that members cannot leave
    /// behind anything on has nothing to withdraw.
    ///
    /// # Errors
    /// When Kafka does not take it.
    async fn forget(
        &self,
        _pool: &PoolRef,
        _role: ControlRole,
        _member: &str,
    ) -> Result<(), ControlPlaneError> {
        Ok(())
    }

    /// How far a consumer group was a few seconds ago; `None` when Kafka cannot be asked.
    fn progress(&self, kafka: &KafkaSettings, topic: &str, group: &str) -> Option<Progress>;

    /// All that is new to read from now on.
    fn news(&self) -> Listener;
}

/// The real one. It answers at once by what it has read so far; reading goes on in the background, so that
/// a broker that is away holds up nobody.
pub struct KafkaControlPlane {
    topic: String,
    followed: Mutex<BTreeMap<String, Followed>>,
    progress: Progresses,
    seen: Mutex<BTreeMap<String, SeenMap>>,
    pub(super) groups: Arc<Mutex<super::group_plane::Known>>,
    pub(super) news: Board,
}

#[derive(Clone)]
pub(super) struct Followed {
    pub(super) topic: ControlTopic,
    pub(super) state: watch::Receiver<ControlState>,
}

impl KafkaControlPlane {
    /// Uses the control topic `topic` of every Kafka that pools name.
    #[must_use]
    pub fn new(topic: &str) -> Self {
        let news = Board::default();
        Self {
            topic: topic.to_owned(),
            followed: Mutex::default(),
            progress: Progresses::new(news.clone()),
            seen: Mutex::default(),
            groups: Arc::default(),
            news,
        }
    }

    pub(super) fn follow(&self, kafka: &KafkaSettings) -> Result<Followed, ControlPlaneError> {
        // The settings are all that tells two connections apart.
        let key = format!("{kafka:?}");
        let mut followed = self.followed.lock();
        if let Some(known) = followed.get(&key) {
            return Ok(known.clone());
        }
        let topic = ControlTopic::new(kafka, &self.topic)?;
        let new = Followed {
            state: topic.follow()?,
            topic,
        };
        tokio::spawn(ensure_topic(new.topic.clone()));
        tokio::spawn(report_changes(new.state.clone(), self.news.clone()));
        followed.insert(key, new.clone());
        Ok(new)
    }

    fn caught_up(&self, kafka: &KafkaSettings) -> Result<ControlState, ControlPlaneError> {
        let followed = self.follow(kafka)?;
        let state = followed.state.borrow();
        if state.caught_up {
            Ok(state.clone())
        } else {
            Err(ControlPlaneError::NoAnswer(kafka.brokers.clone()))
        }
    }
}

/// Creates the control topic as soon as Kafka lets it.
async fn ensure_topic(topic: ControlTopic) {
    while let Err(error) = topic.ensure().await {
        tracing::debug!(%error, "the control topic cannot be created yet");
        tokio::time::sleep(RETRY).await;
    }
}

async fn report_changes(mut state: watch::Receiver<ControlState>, news: Board) {
    let mut before = ControlState::default();
    while state.changed().await.is_ok() {
        let after = state.borrow_and_update().clone();
        for piece in of_control_topic(&before, &after) {
            news.tell(piece);
        }
        before = after;
    }
}

#[async_trait]
impl ControlPlane for KafkaControlPlane {
    fn news(&self) -> Listener {
        self.news.listen()
    }

    async fn published(&self, pool: &PoolRef) -> Result<Published, ControlPlaneError> {
        let state = self.caught_up(&pool.kafka)?;
        let of_pool = state
            .acks
            .iter()
            .filter(|((name, role, _), _)| *name == pool.name && *role == ControlRole::Forwarder);
        Ok(Published {
            map: state.maps.get(&pool.name).cloned(),
            acknowledged: of_pool
                .map(|((_, _, member), ack)| (member.clone(), ack.epoch))
                .collect(),
            mixed: state.mixed.get(&pool.name).cloned(),
        })
    }

    async fn publish(&self, pool: &PoolRef, map: &ShardMap) -> Result<(), ControlPlaneError> {
        let mut followed = self.follow(&pool.kafka)?;
        followed.topic.publish_map(&pool.name, map).await?;
        // What was written is read before anybody decides by it again.
        let arrived = followed.state.wait_for(|state| {
            let read = state.maps.get(&pool.name);
            read.is_some_and(|read| read.epoch() >= map.epoch())
        });
        match tokio::time::timeout(PATIENCE, arrived).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ControlPlaneError::NoAnswer(pool.kafka.brokers.clone())),
        }
    }

    async fn withdraw(&self, pool: &PoolRef) -> Result<(), ControlPlaneError> {
        let state = self.caught_up(&pool.kafka)?;
        let followed = self.follow(&pool.kafka)?;
        if state.maps.contains_key(&pool.name) {
            followed.topic.remove_map(&pool.name).await?;
        }
        for (name, role, member) in state.acks.keys() {
            if *name == pool.name && *role == ControlRole::Forwarder {
                followed.topic.leave(name, *role, member).await?;
            }
        }
        Ok(())
    }

    fn settling(&self, pool: &PoolRef) -> Settling {
        let Ok(state) = self.caught_up(&pool.kafka) else {
            return Settling {
                since_published: Duration::ZERO,
                routers_settled: Duration::ZERO,
                ..Settling::default()
            };
        };
        let of_pool = state
            .acks
            .iter()
            .filter(|((name, role, _), _)| *name == pool.name && *role == ControlRole::Router);
        let routers: BTreeMap<String, u64> = of_pool
            .map(|((_, _, member), ack)| (member.clone(), ack.epoch))
            .collect();
        let epoch = state.maps.get(&pool.name).map_or(0, |map| map.epoch());
        let all_acknowledged = routers.values().all(|&acknowledged| acknowledged >= epoch);
        let mut seen = self.seen.lock();
        let known = seen.get(&pool.name).copied();
        let updated = SeenMap::update(known, epoch, all_acknowledged, Instant::now());
        seen.insert(pool.name.clone(), updated);
        updated.settling(routers)
    }

    async fn forget(
        &self,
        pool: &PoolRef,
        role: ControlRole,
        member: &str,
    ) -> Result<(), ControlPlaneError> {
        let followed = self.follow(&pool.kafka)?;
        Ok(followed.topic.leave(&pool.name, role, member).await?)
    }

    fn progress(&self, kafka: &KafkaSettings, topic: &str, group: &str) -> Option<Progress> {
        self.progress.of(kafka, topic, group)
    }
}
