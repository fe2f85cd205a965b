//! Which shards a pool's map holds: a pure decision.

use std::collections::BTreeMap;

use ofa_crds::api::{ConditionStatus, NatsShard, READY};
use ofa_crds::shard_map::{Shard, ShardMapError};
use ofa_crds::{ShardMap, ShardName};

/// A shard that a pool selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Name of its resource.
    pub resource: String,
    /// The shard, as far as it is known.
    pub shard: Option<Shard>,
    /// Whether it is ready now.
    pub ready: bool,
    /// Secret with its TLS files.
    pub tls_secret: Option<String>,
}

/// What becomes of the map.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The published one holds; shards named here join when they are ready for the first time.
    Keep {
        /// Resources that are waited for.
        waiting: Vec<String>,
    },
    /// This one takes its place.
    Publish(ShardMap),
    /// There is none yet, and these must be ready first.
    Wait(Vec<String>),
    /// Nothing can be published.
    Refuse(String),
}

/// The shards of `namespace` with all of `labels`.
#[must_use]
pub fn select(
    shards: &[NatsShard],
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<Candidate> {
    let selected = shards.iter().filter(|shard| {
        let own = shard.metadata.labels.as_ref();
        shard.metadata.namespace.as_deref() == Some(namespace)
            && labels
                .iter()
                .all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    });
    selected.map(candidate).collect()
}

fn candidate(shard: &NatsShard) -> Candidate {
    let status = shard.status.clone().unwrap_or_default();
    let name = status
        .cluster_name
        .and_then(|name| name.parse::<ShardName>().ok());
    let ready = status
        .conditions
        .iter()
        .any(|c| c.kind == READY && c.status == ConditionStatus::True);
    Candidate {
        resource: shard.metadata.name.clone().unwrap_or_default(),
        shard: name.filter(|_| !status.urls.is_empty()).map(|name| Shard {
            name,
            urls: status.urls,
            advertised_urls: shard.spec.client_urls.clone(),
        }),
        ready,
        tls_secret: shard.spec.tls.as_ref().map(|tls| tls.secret_name.clone()),
    }
}

/// Decides what becomes of the published map. A shard joins when it is ready for the first time and
/// stays, ready or not, until it is no longer selected: assets move when somebody asks for it, not when
/// a node is away. The first map waits for all, or it would be followed by another at once.
#[must_use]
pub fn decide(
    candidates: &[Candidate],
    published: Option<&ShardMap>,
    ring_replicas: u32,
) -> Decision {
    if let Some(twice) = shared_name(candidates) {
        return Decision::Refuse(twice);
    }
    if candidates.is_empty() {
        return match published {
            None => Decision::Wait(vec![
                "a NatsShard that spec.shardSelector selects".to_owned(),
            ]),
            Some(map) => Decision::Refuse(format!(
                "spec.shardSelector selects no NatsShard any more; the map of epoch {} stays in force until it selects one",
                map.epoch()
            )),
        };
    }
    let is_member = |shard: &Shard| {
        published.is_some_and(|map| map.shards().iter().any(|s| s.name == shard.name))
    };
    let (joined, waiting): (Vec<&Candidate>, Vec<&Candidate>) = candidates.iter().partition(|c| {
        c.shard
            .as_ref()
            .is_some_and(|shard| c.ready || is_member(shard))
    });
    let waiting: Vec<String> = waiting.into_iter().map(|c| c.resource.clone()).collect();
    if joined.is_empty() || (published.is_none() && !waiting.is_empty()) {
        return Decision::Wait(waiting);
    }
    let mut shards: Vec<Shard> = joined.into_iter().filter_map(|c| c.shard.clone()).collect();
    shards.sort_by(|a, b| a.name.cmp(&b.name));
    next_map(shards, published, ring_replicas, waiting)
}

fn next_map(
    shards: Vec<Shard>,
    published: Option<&ShardMap>,
    ring_replicas: u32,
    waiting: Vec<String>,
) -> Decision {
    let epoch = published.map_or(0, ShardMap::epoch);
    match ShardMap::from_ring(epoch, shards, ring_replicas) {
        Ok(map) if published == Some(&map) => Decision::Keep { waiting },
        Ok(map) => Decision::Publish(map.with_epoch(epoch + 1)),
        Err(error) => Decision::Refuse(refusal(&error)),
    }
}

fn refusal(error: &ShardMapError) -> String {
    format!("no shard map can be made: {error}")
}

/// Two resources of one name on the ring would share their assets.
fn shared_name(candidates: &[Candidate]) -> Option<String> {
    let mut names: BTreeMap<&ShardName, &str> = BTreeMap::new();
    for candidate in candidates {
        let Some(shard) = &candidate.shard else {
            continue;
        };
        if let Some(other) = names.insert(&shard.name, &candidate.resource) {
            return Some(format!(
                "NatsShards {other} and {} are both called {} on the ring; give one another spec.clusterName",
                candidate.resource, shard.name
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(name: &str, ready: bool) -> Candidate {
        Candidate {
            resource: name.to_lowercase(),
            shard: Some(Shard {
                name: name.parse().unwrap(),
                urls: vec![format!("nats://{name}:4222")],
                advertised_urls: vec![],
            }),
            ready,
            tls_secret: None,
        }
    }

    fn published(candidates: &[Candidate], before: Option<&ShardMap>) -> ShardMap {
        match decide(candidates, before, 8) {
            Decision::Publish(map) => map,
            other => panic!("{other:?}"),
        }
    }

    fn names(map: &ShardMap) -> Vec<&str> {
        map.shards()
            .iter()
            .map(|shard| shard.name.as_str())
            .collect()
    }

    #[test]
    fn the_first_map_waits_for_all_selected_shards() {
        let candidates = [shard("A", true), shard("B", false)];
        assert_eq!(
            decide(&candidates, None, 8),
            Decision::Wait(vec!["b".into()])
        );
        let map = published(&[shard("B", true), shard("A", true)], None);
        assert_eq!((map.epoch(), names(&map)), (1, vec!["A", "B"]));
    }

    #[test]
    fn a_shard_that_is_away_for_a_while_stays_in_the_map() {
        let map = published(&[shard("A", true), shard("B", true)], None);
        let away = [shard("A", true), shard("B", false)];
        assert_eq!(
            decide(&away, Some(&map), 8),
            Decision::Keep { waiting: vec![] }
        );
    }

    #[test]
    fn a_new_shard_joins_when_it_is_ready_and_the_epoch_goes_on() {
        let map = published(&[shard("A", true)], None).with_epoch(7);
        let joining = [shard("A", true), shard("B", false)];
        assert_eq!(
            decide(&joining, Some(&map), 8),
            Decision::Keep {
                waiting: vec!["b".into()]
            }
        );
        let next = published(&[shard("A", false), shard("B", true)], Some(&map));
        assert_eq!((next.epoch(), names(&next)), (8, vec!["A", "B"]));
    }

    #[test]
    fn a_shard_that_is_no_longer_selected_leaves_but_never_the_last() {
        let map = published(&[shard("A", true), shard("B", true)], None);
        assert_eq!(names(&published(&[shard("A", true)], Some(&map))), ["A"]);
        assert!(matches!(decide(&[], Some(&map), 8), Decision::Refuse(_)));
    }

    #[test]
    fn two_shards_of_one_name_are_refused() {
        let mut twin = shard("A", true);
        twin.resource = "twin".into();
        assert!(matches!(
            decide(&[shard("A", true), twin], None, 8),
            Decision::Refuse(_)
        ));
    }
}
