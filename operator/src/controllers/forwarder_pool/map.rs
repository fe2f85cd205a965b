//! Which shards a pool's map is to hold: a pure decision.

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

/// The map that the resources ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// This one, under no epoch yet.
    Map {
        /// The map.
        map: ShardMap,
        /// Resources that join when they are ready for the first time.
        waiting: Vec<String>,
    },
    /// There is none yet, and these must be ready first.
    Wait(Vec<String>),
    /// None can be made.
    Refuse(String),
}

/// The shards of `namespace` with all of `labels`; one that is being deleted gives its assets away.
#[must_use]
pub fn select(
    shards: &[NatsShard],
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<Candidate> {
    let selected = shards.iter().filter(|shard| {
        let own = shard.metadata.labels.as_ref();
        shard.metadata.namespace.as_deref() == Some(namespace)
            && shard.metadata.deletion_timestamp.is_none()
            && labels
                .iter()
                .all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    });
    selected.map(candidate).collect()
}

/// Shards of `namespace` that are not among the `selected` any more and still in the published map: until the
/// map has let go of them, forwarders publish to them too.
#[must_use]
pub fn leaving(
    shards: &[NatsShard],
    namespace: &str,
    selected: &[Candidate],
    published: Option<&ShardMap>,
) -> Vec<Candidate> {
    let others = shards
        .iter()
        .filter(|shard| shard.metadata.namespace.as_deref() == Some(namespace))
        .map(candidate)
        .filter(|other| selected.iter().all(|c| c.resource != other.resource));
    others
        .filter(|other| {
            let shard = other.shard.as_ref();
            shard.is_some_and(|shard| is_member(shard, published))
        })
        .collect()
}

fn is_member(shard: &Shard, published: Option<&ShardMap>) -> bool {
    published.is_some_and(|map| map.shards().iter().any(|s| s.name == shard.name))
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

/// Says which map is wanted. A shard joins when it is ready for the first time and stays, ready or not, until it
/// is no longer selected: assets move when somebody asks for it, not when a node is away. The first map waits for
/// all, or it would be followed by another at once; for the same reason nobody leaves while somebody is awaited.
#[must_use]
pub fn wanted(
    candidates: &[Candidate],
    published: Option<&ShardMap>,
    ring_replicas: u32,
) -> Wanted {
    if let Some(twice) = shared_name(candidates) {
        return Wanted::Refuse(twice);
    }
    if candidates.is_empty() {
        return match published {
            None => Wanted::Wait(vec![
                "a NatsShard that spec.shardSelector selects".to_owned(),
            ]),
            Some(map) => Wanted::Refuse(format!(
                "spec.shardSelector selects no NatsShard any more; the map of epoch {} stays in force until it selects one",
                map.epoch()
            )),
        };
    }
    let (joined, waiting): (Vec<&Candidate>, Vec<&Candidate>) = candidates.iter().partition(|c| {
        let shard = c.shard.as_ref();
        shard.is_some_and(|shard| c.ready || is_member(shard, published))
    });
    let waiting: Vec<String> = waiting.into_iter().map(|c| c.resource.clone()).collect();
    if joined.is_empty() || (published.is_none() && !waiting.is_empty()) {
        return Wanted::Wait(waiting);
    }
    let mut shards: Vec<Shard> = joined.into_iter().filter_map(|c| c.shard.clone()).collect();
    if !waiting.is_empty() {
        shards.extend(staying(candidates, published));
    }
    shards.sort_by(|a, b| a.name.cmp(&b.name));
    match ShardMap::from_ring(0, shards, ring_replicas) {
        Ok(map) => Wanted::Map { map, waiting },
        Err(error) => Wanted::Refuse(refusal(&error)),
    }
}

/// Shards that are no longer selected keep their assets until those that come are ready, so that what one shard gives
/// to another moves once. A change that is under way is not called off for it.
fn staying(candidates: &[Candidate], published: Option<&ShardMap>) -> Vec<Shard> {
    let published = published.filter(|map| map.handover().is_none());
    let members = published.into_iter().flat_map(ShardMap::shards);
    let selected = |shard: &&Shard| {
        let mut known = candidates.iter().filter_map(|c| c.shard.as_ref());
        known.any(|other| other.name == shard.name)
    };
    members.filter(|shard| !selected(shard)).cloned().collect()
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

    fn asked(candidates: &[Candidate], before: Option<&ShardMap>) -> (ShardMap, Vec<String>) {
        match wanted(candidates, before, 8) {
            Wanted::Map { map, waiting } => (map, waiting),
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
        assert_eq!(wanted(&candidates, None, 8), Wanted::Wait(vec!["b".into()]));
        let (map, _) = asked(&[shard("B", true), shard("A", true)], None);
        assert_eq!(names(&map), ["A", "B"]);
    }

    #[test]
    fn a_shard_that_is_away_for_a_while_stays_in_the_map() {
        let (map, _) = asked(&[shard("A", true), shard("B", true)], None);
        let away = [shard("A", true), shard("B", false)];
        assert_eq!(asked(&away, Some(&map)), (map, vec![]));
    }

    #[test]
    fn a_new_shard_joins_when_it_is_ready() {
        let (map, _) = asked(&[shard("A", true)], None);
        let joining = [shard("A", true), shard("B", false)];
        assert_eq!(
            asked(&joining, Some(&map)),
            (map.clone(), vec!["b".to_owned()])
        );
        let (next, _) = asked(&[shard("A", false), shard("B", true)], Some(&map));
        assert_eq!(names(&next), ["A", "B"]);
    }

    #[test]
    fn a_shard_that_is_no_longer_selected_leaves_but_never_the_last() {
        let (map, _) = asked(&[shard("A", true), shard("B", true)], None);
        assert_eq!(names(&asked(&[shard("A", true)], Some(&map)).0), ["A"]);
        assert!(matches!(wanted(&[], Some(&map), 8), Wanted::Refuse(_)));
    }

    #[test]
    fn a_shard_that_is_replaced_stays_until_the_other_is_ready_and_its_assets_move_once() {
        let (map, _) = asked(&[shard("A", true), shard("B", true)], None);
        let coming = [shard("A", true), shard("C", false)];
        let (same, waiting) = asked(&coming, Some(&map));
        assert_eq!((names(&same), waiting), (vec!["A", "B"], vec!["c".into()]));
        let come = [shard("A", true), shard("C", true)];
        assert_eq!(names(&asked(&come, Some(&map)).0), ["A", "C"]);
        // B is leaving already.
        let leaving = map.begin_handover(&asked(&[shard("A", true)], Some(&map)).0, 2);
        assert_eq!(names(&asked(&coming, Some(&leaving)).0), ["A"]);
    }

    #[test]
    fn two_shards_of_one_name_are_refused() {
        let mut twin = shard("A", true);
        twin.resource = "twin".into();
        assert!(matches!(
            wanted(&[shard("A", true), twin], None, 8),
            Wanted::Refuse(_)
        ));
    }

    fn resource(name: &str) -> NatsShard {
        let mut shard = NatsShard::new(name, ofa_crds::api::NatsShardSpec::default());
        shard.metadata.namespace = Some("n".to_owned());
        shard.status = Some(ofa_crds::api::NatsShardStatus {
            cluster_name: Some(name.to_owned()),
            urls: vec![format!("nats://{name}:4222")],
            ..Default::default()
        });
        shard
    }

    #[test]
    fn a_deleted_shard_leaves_and_forwarders_keep_its_credentials_meanwhile() {
        let mut shards = [resource("a"), resource("b"), resource("c")];
        let all = select(&shards, "n", &BTreeMap::new());
        let candidates: Vec<Candidate> = all[..2].iter().cloned().map(ready).collect();
        let (map, _) = asked(&candidates, None);

        shards[1].metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
        );
        let selected = select(&shards, "n", &BTreeMap::new());
        let of = |candidates: &[Candidate]| -> Vec<String> {
            candidates.iter().map(|c| c.resource.clone()).collect()
        };
        assert_eq!(of(&selected), ["a", "c"]);
        assert_eq!(of(&leaving(&shards, "n", &selected, Some(&map))), ["b"]);
        assert_eq!(of(&leaving(&shards, "n", &selected, None)), [""; 0]);
        assert_eq!(of(&leaving(&shards, "m", &selected, Some(&map))), [""; 0]);
    }

    fn ready(candidate: Candidate) -> Candidate {
        Candidate {
            ready: true,
            ..candidate
        }
    }
}
