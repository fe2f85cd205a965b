//! What runs for the objects, and what of it would start, restart or stop.

use std::collections::BTreeMap;

use ofa_crds::api::{ConditionStatus, NatsShard, NatsShardStatus, ROLLOUT_PENDING};
use ofa_crds::{ShardAccess, ShardAccessFile};

use super::{Objects, Step};
use crate::controllers::asset_group::validate::Engine;
use crate::controllers::forwarder_pool::map::Candidate;
use crate::controllers::nats_shard::conf::{self, Conf};
use crate::controllers::nats_shard::credentials::Credentials;
use crate::controllers::nats_shard::validate::ValidShard;
use crate::controllers::{Settings, asset_group, forwarder_pool, nats_shard};
use crate::plain::{Plain, Service, workload};
use crate::platform::{FileContent, Workload, WorkloadId, WorkloadKind};
use crate::resources::Manifest;

/// A workload, and whether a newer operator has kept back what it would build anew for it.
struct Built {
    workload: Workload,
    held_back: bool,
}

pub(super) fn steps(before: &Objects, after: &Objects, settings: &Settings) -> Vec<Step> {
    let (old, new) = (workloads(before, settings), workloads(after, settings));
    let mut steps = Vec::new();
    for (id, wanted) in &new {
        let wanted = &wanted.workload;
        match old.get(id) {
            None => steps.push(Step::Start {
                workload: id.clone(),
                instances: wanted.replicas,
            }),
            Some(running) => steps.extend(changes(running, wanted)),
        }
    }
    let gone = old.into_keys().filter(|id| !new.contains_key(id));
    steps.extend(gone.map(|workload| Step::Stop { workload }));
    steps
}

fn changes(running: &Built, wanted: &Workload) -> Vec<Step> {
    let (id, held_back) = (wanted.id.clone(), running.held_back);
    let running = &running.workload;
    let mut steps = Vec::new();
    if running.replicas != wanted.replicas {
        steps.push(Step::Scale {
            workload: id.clone(),
            from: running.replicas,
            to: wanted.replicas,
        });
    }
    // Those that run before and after.
    let instances = instances(wanted, running.replicas.min(wanted.replicas));
    // With anything that users choose, what was kept back is taken in.
    let held_back = held_back && running.chosen != wanted.chosen;
    match change(running, wanted) {
        _ if instances.is_empty() => {}
        Change::None if !held_back => {}
        Change::Reload if !held_back => steps.push(Step::Reload {
            workload: id,
            instances,
        }),
        Change::None | Change::Reload | Change::Restart => steps.push(Step::Restart {
            workload: id,
            instances,
            held_back,
        }),
    }
    steps
}

/// The names of a workload's instances in the order in which they are replaced, the last first; their number where the
/// platform names them.
fn instances(workload: &Workload, count: u16) -> Vec<String> {
    match workload.kind {
        WorkloadKind::Stateful { .. } => {
            (0..count).rev().map(|n| workload.id.instance(n)).collect()
        }
        WorkloadKind::Stateless { .. } if count == 0 => Vec::new(),
        WorkloadKind::Stateless { .. } => vec![format!("{count} instances")],
    }
}

/// What a change does to running instances.
enum Change {
    None,
    Reload,
    Restart,
}

fn change(running: &Workload, wanted: &Workload) -> Change {
    let (mut old, mut new) = (running.clone(), wanted.clone());
    old.replicas = new.replicas;
    old.chosen.clone_from(&new.chosen);
    let (before, after) = (take_live(&mut old), take_live(&mut new));
    let restarts = |(before, after): (&String, &String)| conf::takes_restart(before, after);
    if old != new || before.iter().zip(&after).any(restarts) {
        Change::Restart
    } else if before == after {
        Change::None
    } else {
        Change::Reload
    }
}

/// Takes out the texts that running instances take in.
fn take_live(workload: &mut Workload) -> Vec<String> {
    let files = workload.files.iter_mut();
    let live = files.filter_map(|file| match &mut file.content {
        FileContent::Live(text) => Some(std::mem::take(text)),
        FileContent::Plain(_) | FileContent::Sensitive(_) | FileContent::Secret { .. } => None,
    });
    live.collect()
}

/// The workloads of all objects that can be built. Owners, passwords and addresses do not tell two of them apart.
fn workloads(objects: &Objects, settings: &Settings) -> BTreeMap<WorkloadId, Built> {
    let services: Vec<&Service> = objects.values().filter_map(as_service).collect();
    let shards = shards(objects);
    let built = objects.values().filter_map(|object| {
        let namespace = object.meta().namespace.as_deref();
        let near: Vec<&Service> = services
            .iter()
            .copied()
            .filter(|service| service.metadata.namespace.as_deref() == namespace)
            .collect();
        let mut workload = build(object, &near, &shards, settings)?;
        workload.owner.uid.clear();
        let held_back = object.conditions().iter().any(|condition| {
            condition.kind == ROLLOUT_PENDING && condition.status == ConditionStatus::True
        });
        Some(Built {
            workload,
            held_back,
        })
    });
    built
        .map(|built| (built.workload.id.clone(), built))
        .collect()
}

fn as_service(object: &Manifest) -> Option<&Service> {
    match object {
        Manifest::Service(service) => Some(service),
        _ => None,
    }
}

fn build(
    object: &Manifest,
    services: &[&Service],
    shards: &[NatsShard],
    settings: &Settings,
) -> Option<Workload> {
    match object {
        Manifest::Service(_) => None,
        Manifest::Deployment(it) => workload(Plain::Deployment(it), services).ok(),
        Manifest::StatefulSet(it) => workload(Plain::StatefulSet(it), services).ok(),
        Manifest::NatsShard(shard) => {
            let valid = nats_shard::validate::validate(shard).ok()?;
            let hosts = hosts(&valid);
            let nobody = Credentials {
                forwarder: String::new(),
                client: String::new(),
                route: String::new(),
                operator: String::new(),
            };
            let conf = Conf::of(&valid, &hosts, &nobody);
            Some(nats_shard::build::build(&valid, &conf))
        }
        Manifest::ForwarderPool(pool) => {
            let valid = forwarder_pool::validate::validate(pool, settings).ok()?;
            let (namespace, labels) = (&valid.identity.namespace, &valid.shard_labels);
            let selected = forwarder_pool::map::select(shards, namespace, labels);
            let access = nobodys(&selected);
            Some(forwarder_pool::build::build(
                &valid, &selected, &access, settings, false,
            ))
        }
        Manifest::AssetGroup(group) => {
            let valid = asset_group::validate::validate(group, settings).ok()?;
            let is_native = matches!(valid.engine, Engine::Native);
            is_native.then(|| asset_group::build::build(&valid, settings, false))
        }
    }
}

/// Names the shards alone.
fn nobodys(shards: &[Candidate]) -> ShardAccessFile {
    let known = shards.iter().filter_map(|it| it.shard.as_ref());
    let access = known.map(|shard| {
        let nobody = ShardAccess {
            username: String::new(),
            password: String::new(),
            ca_certificate: None,
        };
        (shard.name.clone(), nobody)
    });
    ShardAccessFile(access.collect())
}

fn hosts(shard: &ValidShard) -> Vec<String> {
    let id = shard.workload_id();
    (0..shard.nodes)
        .map(|ordinal| id.instance(ordinal))
        .collect()
}

/// All shards as their controller will leave them.
pub(super) fn shards(objects: &Objects) -> Vec<NatsShard> {
    let shards = objects.values().filter_map(|object| match object {
        Manifest::NatsShard(shard) => Some(shard.as_ref().clone()),
        _ => None,
    });
    let known = shards.filter_map(|mut shard| {
        let valid = nats_shard::validate::validate(&shard).ok()?;
        shard.status = Some(NatsShardStatus {
            cluster_name: Some(valid.ring_name.to_string()),
            urls: nats_shard::build::urls(&valid, &hosts(&valid)),
            ..NatsShardStatus::default()
        });
        Some(shard)
    });
    known.collect()
}
