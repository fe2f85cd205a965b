//! The labels by which the operator finds what is its own, and reads back for whom it is.

use std::collections::{BTreeMap, HashMap};

use crate::platform::{Owner, Workload, WorkloadId};

/// Which installation of the operator something belongs to: two on one Swarm leave each other alone.
pub(super) const INSTALLATION: &str = "io.openfactory.fanout.installation";
/// Namespace of the workload.
pub(super) const NAMESPACE: &str = "io.openfactory.fanout.namespace";
/// Name of the workload.
pub(super) const WORKLOAD: &str = "io.openfactory.fanout.workload";
/// Ordinal of an instance that has an identity.
pub(super) const ORDINAL: &str = "io.openfactory.fanout.ordinal";
/// Number of instances asked for.
pub(super) const REPLICAS: &str = "io.openfactory.fanout.replicas";
/// On a service: what instances are to be made from. On a container: what it was made from.
pub(super) const TEMPLATE: &str = "io.openfactory.fanout.template";
/// How a container's state is asked for, as JSON.
pub(super) const PROBES: &str = "io.openfactory.fanout.probes";
/// Marks a config that holds a secret the operator has generated.
pub(super) const GENERATED: &str = "io.openfactory.fanout.generated";

/// Marks a config that holds the operator's state, with its number: the highest is the newest.
pub(super) const STATE: &str = "io.openfactory.fanout.state";

const OWNER_KIND: &str = "io.openfactory.fanout.owner.kind";
const OWNER_NAME: &str = "io.openfactory.fanout.owner.name";
const OWNER_UID: &str = "io.openfactory.fanout.owner.uid";

/// Labels as Docker has them.
pub(super) type Labels = HashMap<String, String>;

/// What everything of a workload is marked with.
pub(super) fn of_workload(installation: &str, id: &WorkloadId) -> BTreeMap<String, String> {
    let pairs = [
        (INSTALLATION, installation),
        (NAMESPACE, &id.namespace),
        (WORKLOAD, &id.name),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a service is marked with.
pub(super) fn of_service(
    installation: &str,
    workload: &Workload,
    ordinal: Option<u16>,
    template: &str,
) -> Labels {
    let Owner { kind, name, uid } = &workload.owner;
    let mut labels = of_workload(installation, &workload.id);
    let more = [
        (OWNER_KIND, kind.clone()),
        (OWNER_NAME, name.clone()),
        (OWNER_UID, uid.clone()),
        (REPLICAS, workload.replicas.to_string()),
        (TEMPLATE, template.to_owned()),
    ];
    let ordinal = ordinal.map(|ordinal| (ORDINAL, ordinal.to_string()));
    let all = more.into_iter().chain(ordinal);
    labels.extend(all.map(|(name, value)| (name.to_owned(), value)));
    labels.into_iter().collect()
}

/// The workload something was made for.
pub(super) fn workload_of(labels: &Labels) -> Option<WorkloadId> {
    Some(WorkloadId::new(
        labels.get(NAMESPACE)?.as_str(),
        labels.get(WORKLOAD)?.as_str(),
    ))
}

/// For whom a service runs.
pub(super) fn owner_of(labels: &Labels) -> Option<Owner> {
    Some(Owner {
        kind: labels.get(OWNER_KIND)?.clone(),
        name: labels.get(OWNER_NAME)?.clone(),
        uid: labels.get(OWNER_UID)?.clone(),
    })
}

/// A number among the labels.
pub(super) fn number(labels: &Labels, label: &str) -> Option<u16> {
    labels.get(label)?.parse().ok()
}
