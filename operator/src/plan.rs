//! `operator plan`: what a folder of resources would change, nothing of it done.
//!
//! Compares the folder with what an operator has put in force in its state directory. All of it is computed by the
//! builders that reconciling uses; no process, no broker and no node is asked.
#![allow(clippy::print_stdout, reason = "this is the output of a command")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use ofa_crds::ShardMap;
use ofa_crds::api::{NatsShard, NatsShardStatus};
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::shard_map::Move;

use crate::controllers::forwarder_pool::{self, map};
use crate::controllers::nats_shard::conf::{self, Conf};
use crate::controllers::nats_shard::credentials::Credentials;
use crate::controllers::{KsqlDbSettings, Settings, asset_group, nats_shard};
use crate::plain::{Plain, Service, workload};
use crate::platform::{FileContent, Workload, WorkloadId};
use crate::resources::{Document, Folder, Manifest, ObjectKey, Snapshot, parse_file, read_objects};

/// Prints the plan.
///
/// # Errors
/// When the state directory cannot be read.
pub fn print(state: &Path, resources: &Path) -> io::Result<()> {
    let before = if state.exists() {
        read_objects(state)?
    } else {
        Vec::new()
    };
    let folder = Folder::new(resources.to_owned()).read();
    println!("{}", plan(before, &folder).trim_end());
    Ok(())
}

type Objects = BTreeMap<ObjectKey, Manifest>;

fn plan(before: Vec<Manifest>, folder: &Snapshot) -> String {
    // What an operator was started with is the same before and after.
    let settings = &Settings {
        kafka: KafkaSettings::plain(""),
        control_topic: String::new(),
        forwarder_image: String::new(),
        serving_image: String::new(),
        ksqldb: KsqlDbSettings::default(),
    };
    let alive = before
        .into_iter()
        .filter(|object| object.meta().deletion_timestamp.is_none());
    let before: Objects = alive.map(|object| (object.key(), object)).collect();
    let mut out = String::new();
    for problem in &folder.problems {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "Problem: {problem}");
    }
    let after = wanted(folder, &mut out);
    push_objects(&mut out, &before, &after);
    push_workloads(&mut out, &before, &after, settings);
    push_moves(&mut out, &before, &after, settings);
    if out.is_empty() {
        "Nothing would change.".to_owned()
    } else {
        out
    }
}

/// The objects of the folder. What cannot be read is said, and would leave the object as it is.
fn wanted(folder: &Snapshot, out: &mut String) -> Objects {
    let mut objects = Objects::new();
    for (file, text) in &folder.files {
        for parsed in parse_file(file, text) {
            match parsed {
                Ok(Document { manifest, .. }) => {
                    objects.insert(manifest.key(), manifest);
                }
                Err(problem) => {
                    let _ = writeln!(out, "Problem: {problem}");
                }
            }
        }
    }
    objects
}

fn push_objects(out: &mut String, before: &Objects, after: &Objects) {
    for (key, object) in after {
        match before.get(key) {
            None => drop(writeln!(out, "new       {key}")),
            Some(old) if !old.same_spec(object) => drop(writeln!(out, "changed   {key}")),
            Some(_) => {}
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        let _ = writeln!(out, "deleted   {key}");
    }
}

fn push_workloads(out: &mut String, before: &Objects, after: &Objects, settings: &Settings) {
    let (old, new) = (workloads(before, settings), workloads(after, settings));
    for (id, wanted) in &new {
        let Some(running) = old.get(id) else {
            let _ = writeln!(out, "start     {id}: {} instances", wanted.replicas);
            continue;
        };
        if running.replicas != wanted.replicas {
            let _ = writeln!(
                out,
                "scale     {id}: {} -> {} instances",
                running.replicas, wanted.replicas
            );
        }
        match change(running, wanted) {
            Change::None => {}
            Change::Reload => drop(writeln!(
                out,
                "reload    {id}: {} instances take in a changed configuration, none restarts",
                wanted.replicas
            )),
            Change::Restart => drop(writeln!(
                out,
                "restart   {id}: {} instances, one after the other",
                wanted.replicas
            )),
        }
    }
    for id in old.keys().filter(|id| !new.contains_key(*id)) {
        let _ = writeln!(out, "stop      {id}");
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
fn workloads(objects: &Objects, settings: &Settings) -> BTreeMap<WorkloadId, Workload> {
    let services: Vec<&Service> = objects.values().filter_map(as_service).collect();
    let shards = shards(objects);
    let built = objects.values().filter_map(|object| {
        let namespace = object.meta().namespace.as_deref();
        let near: Vec<&Service> = services
            .iter()
            .copied()
            .filter(|service| service.metadata.namespace.as_deref() == namespace)
            .collect();
        build(object, &near, &shards, settings)
    });
    built
        .map(|mut workload| {
            workload.owner.uid.clear();
            (workload.id.clone(), workload)
        })
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
            let selected = map::select(shards, &valid.identity.namespace, &valid.shard_labels);
            Some(forwarder_pool::build::build(
                &valid, &selected, settings, false,
            ))
        }
        Manifest::AssetGroup(group) => {
            let valid = asset_group::validate::validate(group, settings).ok()?;
            Some(asset_group::build::build(&valid, settings, false))
        }
    }
}

fn hosts(shard: &nats_shard::validate::ValidShard) -> Vec<String> {
    let id = shard.workload_id();
    (0..shard.nodes)
        .map(|ordinal| id.instance(ordinal))
        .collect()
}

/// All shards as their controller will leave them.
fn shards(objects: &Objects) -> Vec<NatsShard> {
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

fn push_moves(out: &mut String, before: &Objects, after: &Objects, settings: &Settings) {
    for key in after.keys() {
        let (old, new) = (
            shard_map(before, key, settings),
            shard_map(after, key, settings),
        );
        let (Some(old), Some(new)) = (old, new) else {
            continue;
        };
        let moves = old.moves_to(&new);
        if moves.is_empty() {
            continue;
        }
        let share: f64 = moves.iter().map(Move::share).sum();
        let _ = writeln!(
            out,
            "move      {key}: {} ranges, {:.1}% of the assets, from {} to {} shards",
            moves.len(),
            share * 100.0,
            old.shards().len(),
            new.shards().len()
        );
    }
}

/// The map that a pool comes to.
fn shard_map(objects: &Objects, pool: &ObjectKey, settings: &Settings) -> Option<ShardMap> {
    let Manifest::ForwarderPool(pool) = objects.get(pool)? else {
        return None;
    };
    let valid = forwarder_pool::validate::validate(pool, settings).ok()?;
    let shards = shards(objects);
    let selected = map::select(&shards, &valid.identity.namespace, &valid.shard_labels);
    let ready = |candidate| map::Candidate {
        ready: true,
        ..candidate
    };
    let selected: Vec<map::Candidate> = selected.into_iter().map(ready).collect();
    match map::wanted(&selected, None, valid.ring_replicas) {
        map::Wanted::Map { map, .. } => Some(map),
        map::Wanted::Wait(_) | map::Wanted::Refuse(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: &str = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: NAME}\nspec: {}\n---\n";

    const POOL: &str = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: ForwarderPool\nmetadata: {name: pool}\nspec: {replicas: 2}\n";

    fn folder(shards: &[&str], pool: &str) -> Snapshot {
        let shards: String = shards
            .iter()
            .map(|name| SHARD.replace("NAME", name))
            .collect();
        Snapshot {
            files: BTreeMap::from([("f.yaml".to_owned(), shards + pool)]),
            problems: Vec::new(),
            complete: true,
        }
    }

    fn in_force(folder: &Snapshot) -> Vec<Manifest> {
        wanted(folder, &mut String::new()).into_values().collect()
    }

    #[test]
    fn what_would_start_move_and_restart_is_told() {
        let two = folder(&["a", "b"], POOL);
        let three = folder(
            &["a", "b", "c"],
            &POOL.replace("replicas: 2", "replicas: 3"),
        );
        let says = |plan: &str, lines: &[&str]| {
            for line in lines {
                assert!(plan.contains(line), "no '{line}' in\n{plan}");
            }
        };
        let first = plan(Vec::new(), &two);
        says(
            &first,
            &[
                "new       ForwarderPool default/pool\n",
                "start     default/a: 3 instances\n",
                "start     default/pool: 2 instances\n",
            ],
        );
        assert!(!first.contains("move"), "{first}");
        let more = plan(in_force(&two), &three);
        says(
            &more,
            &[
                "new       NatsShard default/c\n",
                "changed   ForwarderPool default/pool\n",
                "start     default/c: 3 instances\n",
                "scale     default/pool: 2 -> 3 instances\n",
                "restart   default/pool: 3 instances",
                "move      ForwarderPool default/pool: ",
                "% of the assets, from 2 to 3 shards\n",
            ],
        );
        let less = plan(in_force(&three), &two);
        says(
            &less,
            &[
                "deleted   NatsShard default/c\n",
                "stop      default/c\n",
                "from 3 to 2 shards\n",
            ],
        );
        assert_eq!(plan(in_force(&two), &two), "Nothing would change.");
    }

    #[test]
    fn what_nodes_take_in_while_they_run_is_told_from_what_restarts_them() {
        let with = |spec: &str| {
            let mut folder = folder(&["a"], "");
            for text in folder.files.values_mut() {
                *text = text.replace("spec: {}", &format!("spec: {{config: {{{spec}}}}}"));
            }
            folder
        };
        let told = |change: &str| plan(in_force(&with("")), &with(change));
        assert!(told("maxConnections: 7").contains("reload    default/a: 3 instances"));
        assert!(told("maxPending: 99999999").contains("restart   default/a: 3 instances"));
        assert!(told("lameDuckSeconds: 60").contains("restart   default/a: 3 instances"));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let broken = folder(&["a"], &POOL.replace("replicas: 2", "replicas: many"));
        let said = plan(Vec::new(), &broken);
        assert!(said.starts_with("Problem: f.yaml:"), "{said}");
        assert!(said.contains("start     default/a"), "{said}");
    }
}
