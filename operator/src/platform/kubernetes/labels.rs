//! Names, labels and owner references of the objects that the operator makes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ofa_crds::api::{GROUP, VERSION};

use crate::platform::{Owner, PlatformError, WorkloadId};

/// The one field manager of server-side apply: what another one writes is either not ours or drift.
pub const FIELD_MANAGER: &str = "openfactory-fanout";

/// Label by which everything the operator made is found.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Label with the kind of the resource something is for, as `nats-shard`.
pub const NAME: &str = "app.kubernetes.io/name";

/// Label with the workload that an object belongs to. Only objects that come and go with the workload carry it:
/// by it those are found that the workload no longer asks for.
pub const WORKLOAD: &str = "fanout.openfactory.io/workload";

/// Annotation of a pod with what tells its template from the next.
pub const TEMPLATE: &str = "fanout.openfactory.io/template";

/// Annotation with what was applied last: what is no longer asked for would otherwise never be taken away.
pub const APPLIED: &str = "fanout.openfactory.io/applied";

/// Annotation of an object with a pod template: differs when users have chosen something else.
pub const CHOSEN: &str = "fanout.openfactory.io/chosen";

/// Annotation of an object whose pod template a newer operator would build in another way, with the mark of that
/// template.
pub const HELD_BACK: &str = "fanout.openfactory.io/held-back";

/// The label that carries the name of the resource of this kind, on all objects and pods made for it.
///
/// # Errors
/// `Unsupported` when the kind is not one of ours: its objects would be garbage to Kubernetes at once.
pub fn owner_label(kind: &str) -> Result<&'static str, PlatformError> {
    match kind {
        "NatsShard" => Ok("fanout.openfactory.io/shard"),
        "ForwarderPool" => Ok("fanout.openfactory.io/pool"),
        "AssetGroup" => Ok("fanout.openfactory.io/group"),
        other => Err(PlatformError::Unsupported {
            platform: super::NAME,
            field: "owner",
            reason: format!("{other} is no kind of {GROUP}; apply it with kubectl instead"),
        }),
    }
}

/// The value of [`NAME`] for resources of a kind.
#[must_use]
pub fn component(kind: &str) -> &'static str {
    match kind {
        "NatsShard" => "nats-shard",
        "ForwarderPool" => "forwarder-pool",
        _ => "asset-group",
    }
}

/// What the pods of a workload are selected by. It cannot change once the workload exists.
#[must_use]
pub fn selector(id: &WorkloadId, owner: &Owner) -> BTreeMap<String, String> {
    [
        (NAME, component(&owner.kind)),
        ("app.kubernetes.io/instance", id.name.as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// All labels of a workload's objects and pods.
///
/// # Errors
/// When the owner is not one of ours.
pub fn workload_labels(
    id: &WorkloadId,
    owner: &Owner,
) -> Result<BTreeMap<String, String>, PlatformError> {
    let mut labels = selector(id, owner);
    labels.extend(owner_labels(owner)?);
    labels.insert(WORKLOAD.to_owned(), id.name.clone());
    Ok(labels)
}

/// Labels of everything made for a resource.
///
/// # Errors
/// When the owner is not one of ours.
pub fn owner_labels(owner: &Owner) -> Result<BTreeMap<String, String>, PlatformError> {
    Ok([
        (NAME, component(&owner.kind)),
        (MANAGED_BY, FIELD_MANAGER),
        ("app.kubernetes.io/part-of", FIELD_MANAGER),
        (owner_label(&owner.kind)?, owner.name.as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into())
}

/// Metadata of an object called `name` that goes with the resource.
#[must_use]
pub fn meta(
    namespace: &str,
    name: &str,
    owner: &Owner,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            controller: Some(true),
            // Not to be set: on a deletion in the foreground, which is Argo CD's way, Kubernetes would take the objects
            // away at once, those of a shard that still owns assets too. Our finalizer says when they go.
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// The resource that controls an object, if it is one of ours.
#[must_use]
pub fn owner_of(meta: &ObjectMeta) -> Option<Owner> {
    let references = meta.owner_references.as_ref()?;
    let controller = references.iter().find(|r| r.controller == Some(true))?;
    let ours = controller.api_version.split('/').next() == Some(GROUP);
    ours.then(|| Owner {
        kind: controller.kind.clone(),
        name: controller.name.clone(),
        uid: controller.uid.clone(),
    })
}
