//! One reconciliation of one resource of the Kubernetes API: read it, hold it by a finalizer, reconcile it, say how far
//! it is. What it is that is reconciled knows nothing of all this.

use jiff::Timestamp;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use thiserror::Error;

use super::kind::Kind;
use super::pace::{growing, retry_after};
use super::write::{FINALIZER, hold, let_go, scale};
use crate::controllers::news::Reader;
use crate::controllers::{Backends, Identity, Neighbours, Removal};
use crate::metrics::Metrics;
use crate::platform::WorkloadId;

/// Why a reconciliation was given up; it is tried again.
#[derive(Debug, Error)]
pub enum ShellError {
    /// The API refused.
    #[error("the Kubernetes API: {0}")]
    Api(#[from] kube::Error),
}

/// All resources of our kinds that others have to do with, as the watches know them.
#[derive(Clone)]
pub struct Known {
    /// Shards.
    pub shards: Store<DeserializeGuard<NatsShard>>,
    /// Pools.
    pub pools: Store<DeserializeGuard<ForwarderPool>>,
    /// Groups.
    pub groups: Store<DeserializeGuard<AssetGroup>>,
}

/// What reconciliations work with.
pub struct Shell {
    /// The API.
    pub client: Client,
    /// What reconcilers reach out to.
    pub backends: Backends,
    /// Where events go.
    pub recorder: Recorder,
    /// What is measured.
    pub metrics: Metrics,
}

impl Shell {
    /// Reconciles one resource as it stands in the API now. The watched copy may lag behind what was written last,
    /// and conditions are a merge with the old ones.
    ///
    /// # Errors
    /// When the API refuses; what was done so far holds.
    pub async fn reconcile<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        known: &Known,
    ) -> Result<Action, ShellError> {
        let api: Api<DeserializeGuard<K>> = Api::namespaced(self.client.clone(), namespace);
        let Some(DeserializeGuard(object)) = api.get_opt(name).await? else {
            return Ok(Action::await_change());
        };
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let object = match object {
            Ok(object) => object,
            Err(invalid) => {
                self.say_invalid(&api, name, invalid.metadata.generation, &invalid.error)
                    .await?;
                return Ok(Action::await_change());
            }
        };
        if object.meta().deletion_timestamp.is_some() {
            return self.remove(&api, object, known).await;
        }
        if hold(&api, &object).await? {
            // Its own change calls it up again.
            return Ok(Action::await_change());
        }
        let neighbours = self.neighbours(namespace, known, object.as_pool()).await;
        let context = self.backends.context(&neighbours, true);
        let status = object.reconcile(&context).await;
        if let Some(replicas) = object.scale_to(&status) {
            scale(&api, &object, replicas).await?;
        }
        self.say(&api, &object, &status).await?;
        let next = retry_after(K::conditions(&status), Timestamp::now());
        let next = K::look_again(&status).map_or(next, |soon| soon.min(next));
        Ok(Action::requeue(next))
    }

    /// Resources of the namespace; none is known of another one's. Of pools only those that are asked for: how one reaches
    /// Kafka may take reading a secret.
    async fn neighbours(
        &self,
        namespace: &str,
        known: &Known,
        pools: impl IntoIterator<Item = &ForwarderPool>,
    ) -> Neighbours {
        Neighbours {
            shards: in_namespace(&known.shards, namespace),
            pools: self.backends.pool_refs(pools).await,
            asset_groups: in_namespace(&known.groups, namespace),
        }
    }

    async fn remove<K: Kind>(
        &self,
        api: &Api<K>,
        object: K,
        known: &Known,
    ) -> Result<Action, ShellError> {
        if !object.finalizers().iter().any(|held| held == FINALIZER) {
            return Ok(Action::await_change());
        }
        let namespace = object.namespace().unwrap_or_default();
        let pools = in_namespace(&known.pools, &namespace);
        let neighbours = self.neighbours(&namespace, known, &pools).await;
        let context = self.backends.context(&neighbours, true);
        let removal = if self.is_anothers(&object).await {
            Ok(Removal::Done)
        } else {
            object.finalize(&context).await
        };
        match removal {
            Ok(Removal::Done) => {
                let_go(api, &object).await?;
                let reader = Reader::of(&K::kind(&()), &Identity::of(object.meta()));
                self.backends.readers.remove(&reader);
                return Ok(Action::await_change());
            }
            Ok(Removal::UnderWay) => {}
            Ok(Removal::Refused(why)) => self.say_refused(api, &object, &why).await?,
            Err(error) => self.say_refused(api, &object, &error.to_string()).await?,
        }
        let deleted = object.meta().deletion_timestamp.as_ref().map(|at| at.0);
        Ok(Action::requeue(growing(deleted, Timestamp::now())))
    }

    /// Whether what runs under the resource's name is another one's, which it never had.
    async fn is_anothers<K: Kind>(&self, object: &K) -> bool {
        let id = WorkloadId::new(object.namespace().unwrap_or_default(), object.name_any());
        let owner = Identity::of(object.meta()).owner(&K::kind(&()));
        let found = self.backends.platform.observe(&id).await;
        matches!(found, Ok(Some(state)) if state.owner != owner)
    }
}

fn in_namespace<K: Kind>(store: &Store<DeserializeGuard<K>>, namespace: &str) -> Vec<K> {
    let all = store.state().into_iter();
    let mut found: Vec<K> = all
        .filter_map(|guard| guard.0.clone().ok())
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace))
        .collect();
    found.sort_by_key(kube::ResourceExt::name_any);
    found
}
