//! Takes the steps of a change of owners, and says how far it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ofa_crds::shard_map::handover::{Action, GRACE, Reason, Seen, ends, step};
use ofa_crds::{ControlRole, ShardMap, ShardName};

use super::map::{Candidate, Wanted, wanted};
use super::status::{Observed, routers_behind, running_behind, unacknowledged};
use super::validate::ValidPool;
use crate::controllers::Context;
use crate::controllers::conditions::{Outcome, of_instances};
use crate::controllers::control_plane::{ControlPlaneError, PoolRef, Published, Settling};
use crate::platform::{Phase, PlatformError, WorkloadState};

/// A member that runs acknowledges a map within milliseconds. One that has not for this long, and that the
/// platform does not know of, was killed without being able to say so.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// Takes the next step towards the map that is wanted, and says what is waited for.
pub(super) async fn follow_map(
    valid: &ValidPool,
    shards: &[Candidate],
    published: Published,
    pool: &PoolRef,
    context: &Context<'_>,
    observed: &mut Observed,
) -> Result<Outcome, PlatformError> {
    let (map, waiting) = match wanted(shards, published.map.as_deref(), valid.ring_replicas) {
        Wanted::Refuse(why) => return Ok(Outcome::stalled("NoShardMap", why)),
        Wanted::Wait(waiting) => return Ok(waiting_for(&waiting)),
        Wanted::Map { map, waiting } => (map, waiting),
    };
    let settling = context.control.settling(pool);
    forget_gone(&published, &settling, pool, context, observed).await?;
    let action = decide(&map, shards, &published, &settling, observed);
    observed.settling = Some(settling);
    Ok(match action {
        Action::Nothing => settle(observed, &waiting),
        Action::Wait(reason) => under_way(published.map.as_deref(), &reason),
        Action::Publish(next) => match publish(&next, pool, context).await {
            Err(error) => kafka_outcome(&error),
            Ok(()) => {
                let map = Some(Arc::new(next));
                observed.published = Some(Published { map, ..published });
                settle(observed, &waiting)
            }
        },
    })
}

fn decide(
    map: &ShardMap,
    shards: &[Candidate],
    published: &Published,
    settling: &Settling,
    observed: &Observed,
) -> Action {
    let forwarders = observed.forwarders.as_ref();
    // Before there is a map nobody publishes, and no forwarder becomes ready: platforms that replace an outdated one only
    // when a new one is ready would wait for the map as it waits for them.
    let publishing = published.map.is_some();
    step(&Seen {
        published: published.map.as_deref(),
        wanted: map,
        not_ready: &not_ready(map, shards),
        without_credentials: forwarders
            .filter(|_| publishing)
            .and_then(without_credentials),
        forwarders_behind: &running_behind(forwarders, published),
        routers_behind: &routers_behind(settling, published),
        routers_settled: settling.routers_settled,
        grace: GRACE,
    })
}

fn not_ready(map: &ShardMap, shards: &[Candidate]) -> BTreeSet<ShardName> {
    let away = shards.iter().filter(|candidate| !candidate.ready);
    let names = away.filter_map(|candidate| Some(candidate.shard.as_ref()?.name.clone()));
    names
        .filter(|name| map.shards().iter().any(|shard| shard.name == *name))
        .collect()
}

/// A forwarder that runs and was started before the newest shard had credentials, where a file cannot be changed under it; one that
/// starts later starts with them.
fn without_credentials(forwarders: &WorkloadState) -> Option<&str> {
    let mut instances = forwarders.instances.iter();
    let outdated =
        instances.find(|instance| !instance.current && instance.phase == Phase::Running)?;
    Some(&outdated.name)
}

/// Withdraws the acknowledgements of members that were killed, so that nobody waits for them.
async fn forget_gone(
    published: &Published,
    settling: &Settling,
    pool: &PoolRef,
    context: &Context<'_>,
    observed: &Observed,
) -> Result<(), PlatformError> {
    let Some(map) = &published.map else {
        return Ok(());
    };
    if settling.since_published < GONE_AFTER {
        return Ok(());
    }
    let behind = |(_, epoch): &(&String, &u64)| **epoch < map.epoch();
    let members = |role| {
        let acknowledged = match role {
            ControlRole::Forwarder => &published.acknowledged,
            ControlRole::Router => &settling.routers,
        };
        acknowledged
            .iter()
            .filter(behind)
            .map(move |(member, _)| (role, member))
    };
    let silent: Vec<_> = members(ControlRole::Forwarder)
        .chain(members(ControlRole::Router))
        .collect();
    if silent.is_empty() {
        return Ok(());
    }
    let known = context.platform.list().await?;
    let instances = observed.forwarders.iter().chain(&known);
    let names: BTreeSet<&str> = instances
        .flat_map(|workload| &workload.instances)
        .map(|instance| instance.name.as_str())
        .collect();
    for (role, member) in silent {
        if names.contains(member.as_str()) {
            continue;
        }
        tracing::warn!(
            pool = pool.name,
            ?role,
            member,
            "is gone; it is no longer waited for"
        );
        if let Err(error) = context.control.forget(pool, role, member).await {
            tracing::warn!(%error, member, "cannot be forgotten yet");
        }
    }
    Ok(())
}

async fn publish(
    map: &ShardMap,
    pool: &PoolRef,
    context: &Context<'_>,
) -> Result<(), ControlPlaneError> {
    let shards: Vec<&str> = map
        .shards()
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    tracing::info!(
        pool = pool.name,
        epoch = map.epoch(),
        handover = ?map.handover(),
        ?shards,
        "publishes the shard map"
    );
    context.control.publish(pool, map).await
}

fn settle(observed: &Observed, waiting: &[String]) -> Outcome {
    let (Some(forwarders), Some(published)) = (&observed.forwarders, &observed.published) else {
        return Outcome::under_way("Creating", "the forwarders are about to be created");
    };
    if let Some(map) = published
        .map
        .as_ref()
        .filter(|map| map.handover().is_some())
    {
        let message = format!("{}, which is published now", moving(map));
        return Outcome::under_way("Resharding", message);
    }
    if let Some(outcome) = of_instances(forwarders) {
        return outcome;
    }
    let behind = unacknowledged(forwarders, published);
    if !behind.is_empty() {
        let message = format!(
            "have not acknowledged the shard map yet: {}",
            behind.join(", ")
        );
        return Outcome::under_way("Unacknowledged", message);
    }
    if !waiting.is_empty() {
        return waiting_for(waiting);
    }
    Outcome::ready("all forwarders are ready and act by the published shard map")
}

fn waiting_for(shards: &[String]) -> Outcome {
    let message = format!(
        "waits until ready for the first time: {}",
        shards.join(", ")
    );
    Outcome::under_way("WaitingForShards", message)
}

fn under_way(published: Option<&ShardMap>, reason: &Reason) -> Outcome {
    let moving = published
        .filter(|map| map.handover().is_some())
        .map(|map| format!("{}; ", moving(map)))
        .unwrap_or_default();
    match reason {
        Reason::Credentials(forwarder) => Outcome::under_way(
            "RollingUpdate",
            format!(
                "{moving}{forwarder} has no credentials of the new shard yet; the shard map follows"
            ),
        ),
        Reason::Forwarders(names) => resharding(
            &moving,
            &format!("forwarders have to acknowledge it: {}", names.join(", ")),
        ),
        Reason::Shards(names) => resharding(
            &moving,
            &format!("shards have to be ready: {}", names.join(", ")),
        ),
        Reason::Routers(names) => resharding(
            &moving,
            &format!("routers have to acknowledge it: {}", names.join(", ")),
        ),
        Reason::Clients(_) => resharding(&moving, "clients are given time to move"),
    }
}

fn resharding(moving: &str, waited: &str) -> Outcome {
    Outcome::under_way("Resharding", format!("{moving}{waited}"))
}

/// How far a change is and how much it moves.
fn moving(map: &ShardMap) -> String {
    let (before, after) = ends(map);
    let moves = before.moves_to(&after);
    let share: f64 = moves.iter().map(ofa_crds::shard_map::Move::share).sum();
    let phase = map.handover().map(|phase| format!("{phase:?}"));
    format!(
        "{} of epoch {}: {} ranges, {:.1}% of the assets, move",
        phase.unwrap_or_default(),
        map.epoch(),
        moves.len(),
        share * 100.0
    )
}

pub(super) fn kafka_outcome(error: &ControlPlaneError) -> Outcome {
    Outcome::under_way("KafkaUnreachable", format!("{error}; trying again"))
}

#[cfg(test)]
mod tests {
    use ofa_crds::shard_map::Shard;

    use super::*;
    use crate::platform::{InstanceState, Owner, WorkloadId};

    #[test]
    fn the_first_map_waits_for_no_forwarder_that_only_the_map_makes_ready() {
        let outdated = InstanceState {
            name: "f-0".into(),
            ordinal: 0,
            host: String::new(),
            phase: Phase::Running,
            ready: false,
            current: false,
            restarts: 0,
            stuck: false,
            process: None,
            message: None,
        };
        let forwarders = WorkloadState {
            id: WorkloadId::new("n", "f"),
            owner: Owner {
                kind: "ForwarderPool".into(),
                name: "f".into(),
                uid: "u".into(),
            },
            wanted: 1,
            instances: vec![outdated],
            held_back: false,
        };
        let observed = Observed {
            forwarders: Some(forwarders),
            ..Observed::default()
        };
        let map = |names: &[&str]| {
            let shards = names.iter().map(|name| Shard {
                name: name.parse().unwrap(),
                urls: vec!["nats://h:4222".into()],
                advertised_urls: vec![],
            });
            ShardMap::from_ring(1, shards.collect(), 8).unwrap()
        };
        let next = |published| {
            let published = Published {
                map: published,
                ..Published::default()
            };
            decide(
                &map(&["a", "b"]),
                &[],
                &published,
                &Settling::default(),
                &observed,
            )
        };
        assert!(matches!(next(None), Action::Publish(_)));
        let before = Some(Arc::new(map(&["a"])));
        assert!(matches!(next(before), Action::Wait(Reason::Credentials(_))));
    }

    #[test]
    fn how_much_moves_is_said() {
        let map = |names: &[&str]| {
            let shards = names.iter().map(|name| Shard {
                name: name.parse().unwrap(),
                urls: vec!["nats://h:4222".into()],
                advertised_urls: vec![],
            });
            ShardMap::from_ring(6, shards.collect(), 128).unwrap()
        };
        let dual = map(&["C1", "C2"]).begin_handover(&map(&["C1", "C2", "C3"]), 7);
        let outcome = under_way(Some(&dual), &Reason::Forwarders(vec!["f-0".into()]));
        assert_eq!(
            outcome.message,
            "DualPublish of epoch 7: 78 ranges, 32.7% of the assets, move; forwarders have to acknowledge it: f-0"
        );
        let (before, _) = ends(&dual);
        let none = under_way(Some(&before), &Reason::Credentials("f-0".into()));
        assert_eq!(
            none.message,
            "f-0 has no credentials of the new shard yet; the shard map follows"
        );
    }
}
