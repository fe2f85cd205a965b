//! What keeps the operator from working: said under /ready and in the log, never a reason to end.

use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource};
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use tracing::warn;

use crate::metrics::Metrics;
use crate::platform::kubernetes::scopes;

/// Pause between two looks.
const RETRY: Duration = Duration::from_secs(5);

/// Looks until all kinds can be read; keeps `metrics` informed of what cannot.
pub(super) async fn report(client: &Client, namespaces: &[String], metrics: &Metrics) {
    let mut said = Vec::new();
    loop {
        let missing = missing(client, namespaces).await;
        metrics.pending(missing.clone());
        if missing.is_empty() {
            return;
        }
        if missing != said {
            warn!(?missing, "waits");
            said = missing;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn missing(client: &Client, namespaces: &[String]) -> Vec<String> {
    let kinds = [
        ApiResource::erase::<NatsShard>(&()),
        ApiResource::erase::<ForwarderPool>(&()),
        ApiResource::erase::<AssetGroup>(&()),
    ];
    let mut missing = Vec::new();
    for kind in &kinds {
        for scope in scopes(namespaces) {
            let api: Api<DynamicObject> = match scope {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
                None => Api::all_with(client.clone(), kind),
            };
            let listed = api.list_metadata(&ListParams::default().limit(1)).await;
            missing.extend(listed.err().map(|error| explain(kind, scope, &error)));
        }
    }
    missing.dedup();
    missing
}

fn explain(kind: &ApiResource, namespace: Option<&str>, error: &kube::Error) -> String {
    let name = format!("{}.{}", kind.plural, NatsShard::group(&()));
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            format!("the CRD {name} is not installed; kubectl apply --server-side -f crds/")
        }
        kube::Error::Api(status) if status.code == 403 => {
            let place = namespace.map_or("all namespaces".to_owned(), |n| format!("namespace {n}"));
            format!("{name} cannot be read in {place}; give the operator's role this right")
        }
        other => format!("{name} cannot be read: {other}"),
    }
}
