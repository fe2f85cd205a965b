//! Keeps the shard map that answers follow, and acknowledges its epochs.

use std::sync::Arc;
use std::time::Duration;

use ofa_crds::kafka::{ControlState, ControlTopic, KafkaSettings};
use ofa_crds::shard_map::Assignment;
use ofa_crds::{ControlRole, ShardMap};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{MapArgs, RouterArgs, static_map};
use crate::metrics::Metrics;

/// Rest before an acknowledgement that Kafka did not take is sent again.
const ACK_RETRY: Duration = Duration::from_secs(1);

/// How long the word that this router is gone may take at shutdown.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the router knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Routing {
    /// No shard map yet; why, for `/ready`.
    Unknown(String),
    /// Answers follow this map.
    Known {
        /// The ForwarderPool the map is of; `None` for a map from the environment.
        pool: Option<String>,
        /// The map.
        map: Arc<ShardMap>,
        /// Its digest, which is too much to compute for every answer.
        assignment: Assignment,
    },
}

impl Routing {
    /// By this map, of this pool.
    #[must_use]
    pub fn by(pool: Option<String>, map: Arc<ShardMap>) -> Self {
        let assignment = map.assignment();
        Self::Known {
            pool,
            map,
            assignment,
        }
    }

    /// The map to answer by.
    ///
    /// # Errors
    /// Why there is none yet.
    pub(crate) fn map(&self) -> Result<Arc<ShardMap>, String> {
        match self {
            Self::Known { map, .. } => Ok(Arc::clone(map)),
            Self::Unknown(issue) => Err(issue.clone()),
        }
    }
}

/// This router's place among those who acknowledge.
pub(super) struct Membership(Option<Follower>);

impl Membership {
    /// The control topic, where it is followed.
    pub(super) fn control(&self) -> Option<(watch::Receiver<ControlState>, ControlTopic)> {
        let follower = self.0.as_ref()?;
        Some((follower.states.clone(), follower.control.clone()))
    }
}

struct Follower {
    states: watch::Receiver<ControlState>,
    task: JoinHandle<()>,
    control: ControlTopic,
    member: String,
    routing: watch::Receiver<Routing>,
}

/// Takes the map from the environment, or begins to follow the control topic and acknowledges what is followed.
pub(super) fn start(
    args: &RouterArgs,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(watch::Receiver<Routing>, Membership)> {
    let member = args.member_name();
    let (routing, followed) = follow(&args.kafka, &args.map, metrics, Some(member.clone()))?;
    let membership = followed.map(|(task, control, states)| Follower {
        states,
        task,
        control,
        member,
        routing: routing.clone(),
    });
    Ok((routing, Membership(membership)))
}

/// The same for one who only looks: nobody waits for it when owners change.
///
/// # Errors
/// When the settings are unusable.
pub(crate) fn look(
    kafka: &KafkaSettings,
    map: &MapArgs,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<watch::Receiver<Routing>> {
    Ok(follow(kafka, map, metrics, None)?.0)
}

type Followed = Option<(JoinHandle<()>, ControlTopic, watch::Receiver<ControlState>)>;

fn follow(
    kafka: &KafkaSettings,
    args: &MapArgs,
    metrics: &Arc<Metrics>,
    member: Option<String>,
) -> anyhow::Result<(watch::Receiver<Routing>, Followed)> {
    if let Some(map) = static_map(std::env::vars(), args.hash_ring_replicas)? {
        metrics.follows(map.epoch(), map.shards().len());
        let (_, routing) = watch::channel(Routing::by(None, Arc::new(map)));
        return Ok((routing, None));
    }
    let control = ControlTopic::new(kafka, &args.shard_map_topic)?;
    let unread = format!("the control topic {} is not read yet", args.shard_map_topic);
    let (sender, routing) = watch::channel(Routing::Unknown(unread));
    let states = control.follow()?;
    let follow = Follow {
        states: states.clone(),
        pool: args.pool.clone(),
        member,
        control: control.clone(),
        metrics: Arc::clone(metrics),
        sender,
    };
    let task = tokio::spawn(follow.run());
    Ok((routing, Some((task, control, states))))
}

impl Membership {
    /// Withdraws the acknowledgement, so that nobody waits for this router any more.
    pub(super) async fn leave(self) {
        let Self(Some(follower)) = self else { return };
        follower.task.abort();
        let pool = match &*follower.routing.borrow() {
            Routing::Known {
                pool: Some(pool), ..
            } => pool.clone(),
            _ => return,
        };
        let left = follower
            .control
            .leave(&pool, ControlRole::Router, &follower.member);
        match tokio::time::timeout(LEAVE_TIMEOUT, left).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the operator is not told that this router is gone"),
            Err(_) => warn!("the operator is not told that this router is gone: Kafka is silent"),
        }
    }
}

struct Follow {
    states: watch::Receiver<ControlState>,
    pool: Option<String>,
    /// The name to acknowledge by, for one who does.
    member: Option<String>,
    control: ControlTopic,
    metrics: Arc<Metrics>,
    sender: watch::Sender<Routing>,
}

impl Follow {
    async fn run(mut self) {
        loop {
            let routing = choose(&self.states.borrow_and_update(), self.pool.as_deref());
            let changed = self.sender.send_if_modified(|current| {
                let differs = *current != routing;
                if differs {
                    current.clone_from(&routing);
                }
                differs
            });
            if changed {
                self.changed(&routing).await;
            }
            if self.states.changed().await.is_err() {
                return;
            }
        }
    }

    async fn changed(&mut self, routing: &Routing) {
        match routing {
            Routing::Unknown(issue) => {
                self.metrics.follows(0, 0);
                warn!(issue, "there is no shard map to answer by");
            }
            Routing::Known { pool, map, .. } => {
                self.metrics.follows(map.epoch(), map.shards().len());
                info!(
                    pool,
                    epoch = map.epoch(),
                    shards = map.shards().len(),
                    "answers follow a new shard map"
                );
                if let Some(pool) = pool {
                    self.acknowledge(pool, map.epoch()).await;
                }
            }
        }
    }

    /// Until Kafka has it, or there is something newer to acknowledge.
    async fn acknowledge(&mut self, pool: &str, epoch: u64) {
        let Some(member) = self.member.clone() else {
            return;
        };
        loop {
            let acknowledged = self.control.ack(pool, ControlRole::Router, &member, epoch);
            match acknowledged.await {
                Ok(()) => return,
                Err(error) => warn!(%error, epoch, "the epoch is not acknowledged yet; trying on"),
            }
            tokio::time::sleep(ACK_RETRY).await;
            let now = choose(&self.states.borrow(), self.pool.as_deref());
            if !matches!(now, Routing::Known { map, .. } if map.epoch() == epoch) {
                return;
            }
        }
    }
}

/// The map to answer by, once all of the topic has been read: before, a map may be long out of date.
fn choose(state: &ControlState, pool: Option<&str>) -> Routing {
    if !state.caught_up {
        return Routing::Unknown("the control topic is not read to its end yet".to_owned());
    }
    let chosen = match pool {
        Some(pool) => state.maps.get_key_value(pool),
        None if state.maps.len() > 1 => {
            let pools: Vec<&str> = state.maps.keys().map(String::as_str).collect();
            return Routing::Unknown(format!(
                "there are several pools ({}); name one with FORWARDER_POOL",
                pools.join(", ")
            ));
        }
        None => state.maps.first_key_value(),
    };
    match chosen {
        Some((pool, map)) => Routing::by(Some(pool.clone()), Arc::clone(map)),
        None => Routing::Unknown(match pool {
            Some(pool) => format!(
                "no shard map of the pool {pool} is published yet; is the operator running?"
            ),
            None => "no shard map is published yet; is the operator running?".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(caught_up: bool, pools: &[&str]) -> ControlState {
        let variables = [("NATS_CLUSTER_C1".to_owned(), "nats://a:1".to_owned())];
        let map = Arc::new(static_map(variables.into_iter(), 4).unwrap().unwrap());
        ControlState {
            caught_up,
            maps: pools
                .iter()
                .map(|&pool| (pool.to_owned(), Arc::clone(&map)))
                .collect(),
            ..ControlState::default()
        }
    }

    fn pool_of(routing: &Routing) -> Option<&str> {
        match routing {
            Routing::Known { pool, .. } => pool.as_deref(),
            Routing::Unknown(_) => None,
        }
    }

    #[test]
    fn the_only_pool_is_taken_but_never_one_of_several() {
        assert_eq!(pool_of(&choose(&state(true, &["a"]), None)), Some("a"));
        assert_eq!(pool_of(&choose(&state(true, &["a", "b"]), None)), None);
        assert_eq!(
            pool_of(&choose(&state(true, &["a", "b"]), Some("b"))),
            Some("b")
        );
        assert_eq!(pool_of(&choose(&state(true, &["a"]), Some("b"))), None);
    }

    #[test]
    fn nothing_is_answered_by_a_map_that_may_be_out_of_date() {
        assert_eq!(pool_of(&choose(&state(false, &["a"]), Some("a"))), None);
    }
}
