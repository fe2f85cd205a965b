//! Which assets would get another shard.

use ofa_crds::ShardMap;
use ofa_crds::shard_map::Move;

use super::workloads::shards;
use super::{Objects, Step};
use crate::controllers::Settings;
use crate::controllers::forwarder_pool::map::{Candidate, Wanted, select, wanted};
use crate::controllers::forwarder_pool::validate::validate;
use crate::resources::{Manifest, ObjectKey};

pub(super) fn steps(before: &Objects, after: &Objects, settings: &Settings) -> Vec<Step> {
    let step = |pool: &ObjectKey| {
        let old = shard_map(before, pool, settings)?;
        let new = shard_map(after, pool, settings)?;
        let moves = old.moves_to(&new);
        let share: f64 = moves.iter().map(Move::share).sum();
        (!moves.is_empty()).then(|| Step::Move {
            object: pool.clone(),
            ranges: moves.len(),
            share,
            assets: assets(before, pool).map(|assets| part(assets, share)),
            from: old.shards().len(),
            to: new.shards().len(),
        })
    };
    after.keys().filter_map(step).collect()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate for people"
)]
fn part(assets: u64, share: f64) -> u64 {
    (assets as f64 * share).round() as u64
}

/// The map that a pool comes to.
fn shard_map(objects: &Objects, pool: &ObjectKey, settings: &Settings) -> Option<ShardMap> {
    let Manifest::ForwarderPool(pool) = objects.get(pool)? else {
        return None;
    };
    let valid = validate(pool, settings).ok()?;
    let shards = shards(objects);
    let selected = select(&shards, &valid.identity.namespace, &valid.shard_labels);
    let ready = |candidate| Candidate {
        ready: true,
        ..candidate
    };
    let selected: Vec<Candidate> = selected.into_iter().map(ready).collect();
    match wanted(&selected, None, valid.ring_replicas) {
        Wanted::Map { map, .. } => Some(map),
        Wanted::Wait(_) | Wanted::Refuse(_) => None,
    }
}

/// How many assets the pool's topic has, as far as groups of the same topic have found them.
fn assets(objects: &Objects, pool: &ObjectKey) -> Option<u64> {
    let Manifest::ForwarderPool(pool) = objects.get(pool)? else {
        return None;
    };
    let counts = objects.values().filter_map(|object| match object {
        Manifest::AssetGroup(group) if group.spec.source_topic == pool.spec.source.topic => {
            let groups = &group.status.as_ref()?.groups;
            Some(groups.iter().map(|group| group.assets).sum())
        }
        _ => None,
    });
    counts.max().filter(|&count| count > 0)
}
