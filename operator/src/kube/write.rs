//! What is written to resources of our kinds themselves: their finalizer, their status, their scale.

use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tracing::info;

use super::kind::Kind;
use super::shell::ShellError;
use crate::platform::kubernetes::labels::FIELD_MANAGER;

/// Keeps a resource until what was made for it is gone.
pub(super) const FINALIZER: &str = "fanout.openfactory.io/finalizer";

/// Puts the finalizer on; returns whether it had none.
pub(super) async fn hold<K: Kind>(api: &Api<K>, object: &K) -> Result<bool, ShellError> {
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|held| held == FINALIZER) {
        return Ok(false);
    }
    finalizers.push(FINALIZER.to_owned());
    write_finalizers(api, object, &finalizers).await?;
    Ok(true)
}

pub(super) async fn let_go<K: Kind>(api: &Api<K>, object: &K) -> Result<(), ShellError> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|held| held != FINALIZER);
    write_finalizers(api, object, &finalizers).await
}

/// The list is replaced as a whole, so the version that was read must still stand.
async fn write_finalizers<K: Kind>(
    api: &Api<K>,
    object: &K,
    finalizers: &[String],
) -> Result<(), ShellError> {
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": object.resource_version(),
    }});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = api
        .patch_metadata(&object.name_any(), &params, &Patch::Merge(patch))
        .await;
    ignore_gone(written.map(|_| ()))
}

pub(super) async fn write_status<K: Kind>(
    api: &Api<K>,
    name: &str,
    status: Value,
) -> Result<(), ShellError> {
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch_status(name, &params, &Patch::Apply(patch)).await;
    ignore_gone(written.map(|_| ()))
}

/// Sets the number through the scale subresource, where `kubectl scale` and others set it too: it is the version
/// that was decided by that must still stand.
pub(super) async fn scale<K: Kind>(
    api: &Api<K>,
    object: &K,
    replicas: u16,
) -> Result<(), ShellError> {
    let (name, kind) = (object.name_any(), K::kind(&()));
    info!(%kind, name, replicas, "scales");
    let scale = json!({
        "metadata": {"resourceVersion": object.resource_version()},
        "spec": {"replicas": replicas},
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = api.patch_scale(&name, &params, &Patch::Merge(scale)).await;
    ignore_gone(written.map(|_| ()))
}

/// Nothing is to be said about what is gone.
fn ignore_gone(result: Result<(), kube::Error>) -> Result<(), ShellError> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}
