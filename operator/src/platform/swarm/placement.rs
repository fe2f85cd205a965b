//! Which host each instance of an identity is on: a pure decision.
//!
//! Swarm spreads the tasks of one service. Instances with an identity are a service each, so the operator spreads them,
//! by a constraint that names the host.

use std::collections::BTreeMap;

/// A host that new instances may be put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Id of the node.
    pub(super) id: String,
    /// What instances must differ in: the host itself, or the value of a label of it.
    pub(super) domain: String,
    /// How many tasks of any service it runs.
    pub(super) load: usize,
}

/// What is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Instances asked for.
    pub(super) replicas: u16,
    /// Whether two on one host are worse than none.
    pub(super) required: bool,
    /// Whether an instance stays with its host whatever happens, because its data is there.
    pub(super) bound: bool,
}

/// The host of every instance by ordinal. One that has a host keeps it for as long as the host can be used. `Err` when
/// instances that must lie apart cannot, with the number of hosts that can be used.
///
/// # Errors
/// When a host is missing.
pub(super) fn place(
    asked: Asked,
    now: &BTreeMap<u16, String>,
    hosts: &[Host],
) -> Result<BTreeMap<u16, String>, usize> {
    if asked.required && hosts.len() < usize::from(asked.replicas) || hosts.is_empty() {
        return Err(hosts.len());
    }
    let mut placed: BTreeMap<u16, String> = BTreeMap::new();
    for (&ordinal, host) in now.range(..asked.replicas) {
        let usable = hosts.iter().any(|candidate| candidate.id == *host);
        let crowded = asked.required && placed.values().any(|other| other == host);
        if asked.bound || usable && !crowded {
            placed.insert(ordinal, host.clone());
        }
    }
    for ordinal in 0..asked.replicas {
        if !placed.contains_key(&ordinal) {
            let host = emptiest(&placed, hosts, asked.required).ok_or(hosts.len())?;
            placed.insert(ordinal, host.id.clone());
        }
    }
    Ok(placed)
}

/// The host with the fewest of the others in its domain, then on itself, then with the fewest tasks.
fn emptiest<'a>(
    placed: &BTreeMap<u16, String>,
    hosts: &'a [Host],
    required: bool,
) -> Option<&'a Host> {
    let on = |host: &Host| placed.values().filter(|id| **id == host.id).count();
    let near = |host: &Host| {
        let same = hosts.iter().filter(|other| other.domain == host.domain);
        same.map(on).sum::<usize>()
    };
    let free = hosts.iter().filter(|host| !required || on(host) == 0);
    free.min_by_key(|host| (near(host), on(host), host.load, &host.id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn hosts(names: &[&str]) -> Vec<Host> {
        let host = |name: &&str| Host {
            id: (*name).to_owned(),
            domain: (*name).to_owned(),
            load: 0,
        };
        names.iter().map(host).collect()
    }

    fn asked(replicas: u16, required: bool) -> Asked {
        Asked {
            replicas,
            required,
            bound: false,
        }
    }

    fn ids(placed: &BTreeMap<u16, String>) -> Vec<&str> {
        placed.values().map(String::as_str).collect()
    }

    #[test]
    fn instances_lie_apart_and_stay_where_they_are() {
        let first = place(asked(2, true), &BTreeMap::new(), &hosts(&["a", "b", "c"])).unwrap();
        assert_eq!(ids(&first), ["a", "b"]);
        let more = place(asked(3, true), &first, &hosts(&["a", "b", "c"])).unwrap();
        assert_eq!(ids(&more), ["a", "b", "c"]);
        let moved = place(asked(2, true), &first, &hosts(&["b", "c"])).unwrap();
        assert_eq!(ids(&moved), ["c", "b"], "only the one that lost its host");
        assert_eq!(place(asked(2, true), &first, &hosts(&["b"])), Err(1));
        let together = place(asked(2, false), &first, &hosts(&["b"])).unwrap();
        assert_eq!(ids(&together), ["b", "b"]);
        assert_eq!(place(asked(1, false), &first, &[]), Err(0));
    }

    #[test]
    fn what_has_data_waits_for_its_host() {
        let asked = Asked {
            bound: true,
            ..asked(1, false)
        };
        let now = BTreeMap::from([(0, "gone".to_owned())]);
        assert_eq!(ids(&place(asked, &now, &hosts(&["a"])).unwrap()), ["gone"]);
    }

    #[test]
    fn a_wider_domain_comes_before_the_host() {
        let mut three = hosts(&["a", "b", "c"]);
        three[0].domain = "hall".to_owned();
        three[1].domain = "hall".to_owned();
        let placed = place(asked(2, false), &BTreeMap::new(), &three).unwrap();
        assert_eq!(ids(&placed), ["a", "c"]);
    }

    proptest! {
        #[test]
        fn required_is_kept_and_nobody_moves_without_need(
            before in proptest::collection::btree_map(0u16..5, 0usize..6, 0..5),
            count in 1usize..6,
            replicas in 1u16..5,
        ) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let before: BTreeMap<u16, String> =
                before.into_iter().map(|(o, h)| (o, names[h].to_owned())).collect();
            let hosts = hosts(&names[..count]);
            match place(asked(replicas, true), &before, &hosts) {
                Err(found) => prop_assert!(found == count && count < usize::from(replicas)),
                Ok(placed) => {
                    let different: BTreeSet<&String> = placed.values().collect();
                    prop_assert_eq!(different.len(), usize::from(replicas));
                    prop_assert!(placed.values().all(|id| hosts.iter().any(|h| h.id == *id)));
                    for (ordinal, host) in &placed {
                        let old = before.get(ordinal);
                        let alone = before.range(..ordinal).all(|(_, other)| Some(other) != old);
                        let usable = hosts.iter().any(|h| Some(&h.id) == old);
                        prop_assert!(!(alone && usable) || Some(host) == old);
                    }
                }
            }
        }
    }
}
