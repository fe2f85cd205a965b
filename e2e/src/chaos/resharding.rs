//! The shard map of the stage, changed as the operator changes it: the same steps, by the same function.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ofa_crds::control::{ControlRole, DEFAULT_TOPIC};
use ofa_crds::kafka::{ControlState, ControlTopic, KafkaSettings};
use ofa_crds::ring::DEFAULT_REPLICAS;
use ofa_crds::shard_map::Shard;
use ofa_crds::shard_map::handover::{Action, Seen, step};
use ofa_crds::{ShardMap, ShardName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::nats;
use crate::scene::say;
use crate::wait;

/// The pool that the stage's forwarders are of.
pub(super) const POOL: &str = "chaos.pool";

/// Clients get half a minute from the operator. Those of a scenario ask more often than others whether there is another map, and get
/// as long here as they need where the machine keeps them from nothing for seconds.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is looked whether the next step may be taken.
const LOOK: Duration = Duration::from_millis(100);

/// How long the first map may take.
const FIRST_MAP: Duration = Duration::from_secs(20);

/// Keeps the map as it is wanted.
pub(super) struct Resharding {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

/// What is known of the stage beside the control topic.
#[derive(Debug, Clone)]
struct Wanted {
    map: ShardMap,
    /// Forwarders that were started and not stopped, frozen ones included.
    forwarders: BTreeSet<String>,
}

impl Resharding {
    /// Publishes the map of the first of `shards`, and changes it from then on as it is wanted.
    pub(super) async fn start(kafka: &KafkaSettings, shards: &[nats::Shard]) -> Result<Self> {
        let control = ControlTopic::new(kafka, DEFAULT_TOPIC)?;
        control.ensure().await?;
        let state = control.follow()?;
        let wanted = watch::Sender::new(Wanted {
            map: ring(shards)?,
            forwarders: BTreeSet::new(),
        });
        let task = tokio::spawn(drive(control, state.clone(), wanted.subscribe()));
        let resharding = Self { wanted, task };
        wait::until("the first shard map", FIRST_MAP, async || {
            Ok(state.borrow().maps.contains_key(POOL))
        })
        .await?;
        Ok(resharding)
    }

    /// Has the map made that of these shards; a change that is under way is called off or ended first.
    pub(super) fn want(&self, shards: &[nats::Shard]) -> Result<()> {
        let map = ring(shards)?;
        self.wanted.send_modify(|wanted| wanted.map = map);
        Ok(())
    }

    /// A forwarder has been started.
    pub(super) fn started(&self, forwarder: &str) {
        self.wanted.send_modify(|wanted| {
            wanted.forwarders.insert(forwarder.to_owned());
        });
    }

    /// A forwarder has ended.
    pub(super) fn ended(&self, forwarder: &str) {
        self.wanted.send_modify(|wanted| {
            wanted.forwarders.remove(forwarder);
        });
    }
}

impl Drop for Resharding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ring(shards: &[nats::Shard]) -> Result<ShardMap> {
    let shards = shards.iter().map(|shard| {
        Ok(Shard {
            name: shard.name().parse().context("a shard's name")?,
            urls: shard.nodes().iter().map(nats::Node::url).collect(),
            advertised_urls: Vec::new(),
        })
    });
    Ok(ShardMap::from_ring(
        0,
        shards.collect::<Result<_>>()?,
        DEFAULT_REPLICAS,
    )?)
}

async fn drive(
    control: ControlTopic,
    state: watch::Receiver<ControlState>,
    wanted: watch::Receiver<Wanted>,
) {
    let mut settled: Option<(u64, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let wanted = wanted.borrow().clone();
        let action = {
            let state = state.borrow();
            if !state.caught_up {
                continue;
            }
            next(&state, &wanted, &mut settled)
        };
        let Action::Publish(map) = action else {
            continue;
        };
        say(&format!(
            "chaos: shard map {}, {:?}, {} shards",
            map.epoch(),
            map.handover(),
            map.shards().len()
        ));
        // The broker may be away; by the time it is back, the same step is due.
        if control.publish_map(POOL, &map).await.is_ok() {
            let mut state = state.clone();
            let published = state.wait_for(|state| {
                let newest = state.maps.get(POOL);
                newest.is_some_and(|newest| newest.epoch() >= map.epoch())
            });
            let _ = tokio::time::timeout(FIRST_MAP, published).await;
        }
    }
}

fn next(state: &ControlState, wanted: &Wanted, settled: &mut Option<(u64, Instant)>) -> Action {
    let published = state.maps.get(POOL).map(Arc::as_ref);
    let epoch = published.map_or(0, ShardMap::epoch);
    let acknowledged = |role, member: &String| {
        let key = (POOL.to_owned(), role, member.clone());
        state.acks.get(&key).is_some_and(|ack| ack.epoch >= epoch)
    };
    let forwarders = wanted.forwarders.iter();
    let forwarders_behind: Vec<String> = forwarders
        .filter(|member| !acknowledged(ControlRole::Forwarder, member))
        .cloned()
        .collect();
    let routers_behind = state.behind(POOL, ControlRole::Router, epoch);
    let since = settled
        .filter(|(of, _)| *of == epoch && routers_behind.is_empty())
        .map_or_else(Instant::now, |(_, since)| since);
    *settled = Some((epoch, since));
    step(&Seen {
        published,
        wanted: &wanted.map,
        not_ready: &BTreeSet::<ShardName>::new(),
        without_credentials: None,
        forwarders_behind: &forwarders_behind,
        routers_behind: &routers_behind,
        routers_settled: since.elapsed(),
        grace: GRACE,
    })
}
