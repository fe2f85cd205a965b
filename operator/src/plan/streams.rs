//! Which streams of ksqlDB would be made, made again or dropped.

use std::collections::BTreeMap;

use ofa_crds::api::DeletionPolicy;

use super::{Objects, Step};
use crate::controllers::Settings;
use crate::controllers::asset_group::ksqldb::streams_of;
use crate::engine::ksqldb::{Wanted, plan};
use crate::resources::{Manifest, ObjectKey};

pub(super) fn steps(before: &Objects, after: &Objects, settings: &Settings) -> Vec<Step> {
    let is_group = |object: &&Manifest| matches!(object, Manifest::AssetGroup(_));
    let mut keys: Vec<ObjectKey> = [before, after]
        .iter()
        .flat_map(|objects| objects.values().filter(is_group).map(Manifest::key))
        .collect();
    keys.sort();
    keys.dedup();
    keys.iter()
        .flat_map(|key| of_group(key, before, after, settings))
        .collect()
}

fn of_group(
    object: &ObjectKey,
    before: &Objects,
    after: &Objects,
    settings: &Settings,
) -> Vec<Step> {
    let old = streams(before.get(object), before.get(object), settings);
    let new = streams(after.get(object), before.get(object), settings);
    let mut steps = Vec::new();
    for (stream, wanted) in &new {
        let (object, stream) = (object.clone(), stream.clone());
        match old.get(&stream) {
            None => steps.push(Step::Create { object, stream }),
            Some(running) => {
                steps.extend(plan::change(running, wanted).map(|why| Step::Recreate {
                    object,
                    stream,
                    why,
                }));
            }
        }
    }
    let deletes = deletes(after.get(object).or_else(|| before.get(object)));
    let gone = old.into_keys().filter(|stream| !new.contains_key(stream));
    // By the other policy streams stay when their group goes.
    let dropped = gone.filter(|_| deletes).map(|stream| Step::Drop {
        object: object.clone(),
        stream,
    });
    steps.extend(dropped);
    steps
}

/// The streams that an object asks for, for the groups that were found.
fn streams(
    object: Option<&Manifest>,
    found: Option<&Manifest>,
    settings: &Settings,
) -> BTreeMap<String, Wanted> {
    let Some(Manifest::AssetGroup(group)) = object else {
        return BTreeMap::new();
    };
    let mut group = group.clone();
    // Of another level nobody knows the groups yet.
    if let Some(Manifest::AssetGroup(found)) = found
        && found.spec.grouping.level == group.spec.grouping.level
    {
        group.status.clone_from(&found.status);
    }
    let streams = streams_of(&group, settings).into_iter();
    streams
        .map(|wanted| (wanted.name.as_str().to_owned(), wanted))
        .collect()
}

fn deletes(object: Option<&Manifest>) -> bool {
    let Some(Manifest::AssetGroup(group)) = object else {
        return false;
    };
    group.spec.stream.deletion_policy == DeletionPolicy::Delete
}
