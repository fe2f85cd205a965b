//! The one way objects are written: server-side apply, only where something differs, never over somebody else's.

use std::collections::BTreeMap;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use super::compare::holds;
use super::labels::{APPLIED, CHOSEN, FIELD_MANAGER, HELD_BACK, TEMPLATE, WORKLOAD, owner_of};
use super::objects::{Object, types};
use crate::digest::digest;
use crate::platform::{Owner, PlatformError, WorkloadId};

/// The objects of one workload that are there, by type and name.
pub(super) struct Children {
    by_name: BTreeMap<(String, String), DynamicObject>,
}

fn key(resource: &ApiResource, name: &str) -> (String, String) {
    (resource.kind.clone(), name.to_owned())
}

/// Reads all objects that carry the workload's label.
pub(super) async fn children(client: &Client, id: &WorkloadId) -> Result<Children, PlatformError> {
    let mut by_name = BTreeMap::new();
    let labelled = ListParams::default().labels(&format!("{WORKLOAD}={}", id.name));
    for resource in types() {
        let api = api(client, &id.namespace, &resource);
        let found = api
            .list(&labelled)
            .await
            .map_err(failed("list", &resource.kind, &id.name))?;
        by_name.extend(
            found
                .into_iter()
                .map(|object| (key(&resource, &object.name_any()), object)),
        );
    }
    Ok(Children { by_name })
}

impl Children {
    /// The owner of the workload, as its objects have it.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.by_name
            .values()
            .find_map(|object| owner_of(&object.metadata))
    }

    fn take(&mut self, object: &Object) -> Option<DynamicObject> {
        self.by_name.remove(&key(&object.resource, &object.name))
    }
}

/// Makes an object what it should be, and writes nothing if it already is. `live` is what stands there as far as that
/// is known.
pub(super) async fn apply(
    client: &Client,
    id: &WorkloadId,
    owner: &Owner,
    object: &Object,
    live: Option<DynamicObject>,
) -> Result<(), PlatformError> {
    let api = api(client, &id.namespace, &object.resource);
    let what = || failed("apply", &object.resource.kind, &object.name);
    let live = match live {
        Some(live) => Some(live),
        // Without the label it may still be there: somebody else's, or ours that somebody has changed.
        None => api.get_opt(&object.name).await.map_err(what())?,
    };
    let mut wanted = object.value.clone();
    if let Some(live) = &live {
        hold_back(&mut wanted, live);
    }
    let mark = digest(&wanted);
    wanted["metadata"]["annotations"][APPLIED] = Value::String(mark);
    if let Some(live) = &live {
        refuse_foreign(id, owner, object, live)?;
        if holds(&as_read(live, &wanted), &wanted) {
            return Ok(());
        }
        // It is this very object that is changed, not one that has taken its place meanwhile.
        wanted["metadata"]["uid"] = live.uid().unwrap_or_default().into();
    }
    let mut params = PatchParams::apply(FIELD_MANAGER);
    // A new object is applied without force, so that one which somebody else creates at this moment stays his.
    params.force = live.is_some();
    match api
        .patch(&object.name, &params, &Patch::Apply(&wanted))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if live.is_none() && is_conflict(&error) => Err(conflict(
            id,
            &object.resource.kind,
            &object.name,
            "somebody else",
        )),
        Err(error) => Err(what()(error)),
    }
}

/// Keeps the pod template as it stands where only the operator is newer, and users have chosen nothing else since.
fn hold_back(wanted: &mut Value, live: &DynamicObject) {
    const MARK: &str = "/spec/template/metadata/annotations";
    let annotation = |object: &Value, at: &str, name: &str| {
        let found = object.pointer(at)?.get(name)?.as_str()?;
        Some(found.to_owned())
    };
    let standing = &live.data;
    let (Some(next), Some(now)) = (
        annotation(wanted, MARK, TEMPLATE),
        annotation(standing, MARK, TEMPLATE),
    ) else {
        return;
    };
    let chosen = annotation(wanted, "/metadata/annotations", CHOSEN);
    if next == now || chosen.is_none() || chosen.as_ref() != live.annotations().get(CHOSEN) {
        return;
    }
    wanted["spec"]["template"] = standing["spec"]["template"].clone();
    wanted["metadata"]["annotations"][HELD_BACK] = Value::String(next);
}

/// Deletes what the workload has and no longer asks for. Objects of others are left alone whatever their labels say.
pub(super) async fn prune(
    client: &Client,
    id: &WorkloadId,
    owner: &Owner,
    mut children: Children,
    wanted: &[Object],
) -> Result<(), PlatformError> {
    for object in wanted {
        children.take(object);
    }
    // Last applied, first deleted.
    for resource in types().iter().rev() {
        let left = children
            .by_name
            .iter()
            .filter(|((kind, _), _)| *kind == resource.kind);
        for (_, object) in left {
            if owner_of(&object.metadata).as_ref() == Some(owner) {
                delete(client, id, resource, object).await?;
            }
        }
    }
    Ok(())
}

/// Applies all of a workload's objects in their order, then prunes.
pub(super) async fn apply_all(
    client: &Client,
    id: &WorkloadId,
    owner: &Owner,
    wanted: &[Object],
) -> Result<(), PlatformError> {
    let mut before = children(client, id).await?;
    for object in wanted {
        let live = before.take(object);
        apply(client, id, owner, object, live).await?;
    }
    prune(client, id, owner, before, wanted).await
}

/// Deletes an object unless another one has taken its place; its pods go with it.
pub(super) async fn delete(
    client: &Client,
    id: &WorkloadId,
    resource: &ApiResource,
    object: &DynamicObject,
) -> Result<(), PlatformError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: object.uid(),
        resource_version: None,
    });
    let name = object.name_any();
    match api(client, &id.namespace, resource)
        .delete(&name, &params)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) || is_missing(&error) => Ok(()),
        Err(error) => Err(failed("delete", &resource.kind, &name)(error)),
    }
}

/// An object as it stands in the API. In a list the type is said once for all, and not with each.
fn as_read(live: &DynamicObject, wanted: &Value) -> Value {
    let mut read = serde_json::to_value(live).unwrap_or_default();
    for key in ["apiVersion", "kind"] {
        read[key] = wanted[key].clone();
    }
    read
}

fn refuse_foreign(
    id: &WorkloadId,
    owner: &Owner,
    object: &Object,
    live: &DynamicObject,
) -> Result<(), PlatformError> {
    let kind = &object.resource.kind;
    match owner_of(&live.metadata) {
        Some(found) if found == *owner => Ok(()),
        Some(found) => {
            let theirs = format!("{} {}", found.kind, found.name);
            Err(conflict(id, kind, &object.name, &theirs))
        }
        None => Err(conflict(id, kind, &object.name, "somebody else")),
    }
}

fn conflict(id: &WorkloadId, kind: &str, name: &str, owner: &str) -> PlatformError {
    PlatformError::NameConflict {
        id: WorkloadId::new(id.namespace.as_str(), format!("{name} ({kind})")),
        owner: owner.to_owned(),
    }
}

/// Objects of one type in a namespace.
pub(super) fn api(client: &Client, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// An API error as the platform's.
pub(super) fn failed(
    verb: &'static str,
    kind: &str,
    name: &str,
) -> impl Fn(kube::Error) -> PlatformError + use<> {
    let what = format!("{verb} {kind} {name}");
    move |error| PlatformError::Failed {
        what: what.clone(),
        why: explain(&error),
    }
}

fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}; give the operator's role this right, as its chart does",
            status.message
        ),
        kube::Error::Api(status) => status.message.clone(),
        other => format!("the Kubernetes API does not answer as it should: {other}"),
    }
}

/// Whether the API refused because something else stands there.
pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether there is no such object.
pub(super) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
