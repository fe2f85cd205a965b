//! One pass over all resources, in the order in which they need each other. A bad one never stops the others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ofa_crds::api::{Condition, ConditionStatus, STALLED};
use tracing::{error, info, warn};

use crate::controllers::news::Reader;
use crate::controllers::{
    Backends, Identity, Neighbours, Removal, asset_group, forwarder_pool, nats_shard, plain,
};
use crate::metrics::Metrics;
use crate::plain::{Plain, Service};
use crate::platform::local::store::write_json;
use crate::platform::{Owner, PlatformError, WorkloadId, WorkloadState};
use crate::resources::{Kind, Manifest, ObjectKey, Snapshot, Store};

/// File with the instances of all workloads.
pub const INSTANCES_FILE: &str = "instances.json";

/// Everything a pass needs.
pub struct Reconciler {
    /// State directory.
    pub state: PathBuf,
    /// What is reached out to.
    pub backends: Backends,
    /// The objects in force.
    pub store: Store,
    /// What is measured.
    pub metrics: Metrics,
    /// The instances as last written for `operator status`.
    pub written: Option<Vec<WorkloadState>>,
}

impl Reconciler {
    /// Takes in the folder.
    pub fn take(&mut self, snapshot: &Snapshot) {
        if let Err(error) = self.store.take(snapshot) {
            error!(%error, "the state directory cannot be written; make room");
        }
    }

    /// Reconciles every object once.
    pub async fn reconcile_all(&mut self) {
        for key in self.store.keys() {
            let Some(object) = self.store.get(&key).cloned() else {
                continue;
            };
            let deleted = object.meta().deletion_timestamp.is_some();
            let result = if deleted {
                Ok(())
            } else {
                self.reconcile_one(object).await
            };
            if let Err(error) = result {
                error!(object = %key, %error, "its status cannot be written; make room in the state directory");
            }
        }
        for key in self.store.keys().into_iter().rev() {
            if !self.is_still_needed(&key) {
                self.finalize(&key).await;
            }
        }
        self.remove_orphans().await;
        self.write_instances().await;
        self.metrics.passed();
    }

    async fn reconcile_one(&mut self, mut object: Manifest) -> std::io::Result<()> {
        let before = object.conditions().to_vec();
        let neighbours = self.neighbours().await;
        let context = self.backends.context(&neighbours, false);
        match &mut object {
            Manifest::Service(_) => return Ok(()),
            Manifest::StatefulSet(set) => {
                let services = self.services_of(set.metadata.namespace.as_deref());
                let status =
                    plain::reconcile(Plain::StatefulSet(set), &services, context.platform).await;
                set.status = Some(status);
            }
            Manifest::Deployment(deployment) => {
                let services = self.services_of(deployment.metadata.namespace.as_deref());
                let status =
                    plain::reconcile(Plain::Deployment(deployment), &services, context.platform)
                        .await;
                deployment.status = Some(status);
            }
            Manifest::NatsShard(shard) => {
                shard.status = Some(nats_shard::reconcile(shard, &context).await);
            }
            Manifest::ForwarderPool(pool) => {
                pool.status = Some(forwarder_pool::reconcile(pool, &context).await);
            }
            Manifest::AssetGroup(group) => {
                group.status = Some(asset_group::reconcile(group, &context).await);
            }
        }
        report(&object, &before);
        self.store.set_status(object)
    }

    fn services_of(&self, namespace: Option<&str>) -> Vec<&Service> {
        let services = self
            .store
            .of_kind(Kind::Service)
            .filter_map(|object| match object {
                Manifest::Service(service) => Some(service.as_ref()),
                _ => None,
            });
        services
            .filter(|s| {
                s.metadata.namespace.as_deref() == namespace
                    && s.metadata.deletion_timestamp.is_none()
            })
            .collect()
    }

    async fn neighbours(&self) -> Neighbours {
        let mut neighbours = Neighbours::default();
        let mut pools = Vec::new();
        let kinds = [Kind::NatsShard, Kind::ForwarderPool, Kind::AssetGroup];
        for object in kinds.iter().flat_map(|kind| self.store.of_kind(*kind)) {
            match object {
                Manifest::NatsShard(shard) => neighbours.shards.push(shard.as_ref().clone()),
                Manifest::ForwarderPool(pool) => pools.push(pool.as_ref()),
                Manifest::AssetGroup(group) => neighbours.asset_groups.push(group.as_ref().clone()),
                Manifest::Service(_) | Manifest::StatefulSet(_) | Manifest::Deployment(_) => {}
            }
        }
        neighbours.pools = self.backends.pool_refs(pools).await;
        neighbours
    }

    /// Removes a deleted object, what used others first.
    async fn finalize(&mut self, key: &ObjectKey) {
        let Some(object) = self.store.get(key).cloned() else {
            return;
        };
        if object.meta().deletion_timestamp.is_none() {
            return;
        }
        let neighbours = self.neighbours().await;
        let context = self.backends.context(&neighbours, false);
        let removal = match &object {
            Manifest::Service(_) => Ok(Removal::Done),
            Manifest::AssetGroup(group) => asset_group::finalize(group, &context).await,
            Manifest::StatefulSet(_) | Manifest::Deployment(_) => self.remove_workload(key).await,
            Manifest::NatsShard(shard) => nats_shard::finalize(shard, &context).await,
            Manifest::ForwarderPool(pool) => forwarder_pool::finalize(pool, &context).await,
        };
        let done = match removal {
            Ok(Removal::Done) => {
                let reader = Reader::of(key.kind.name(), &Identity::of(object.meta()));
                self.backends.readers.remove(&reader);
                self.store.forget(key)
            }
            Ok(Removal::UnderWay) => Ok(()),
            Ok(Removal::Refused(why)) => self.refuse_removal(object, &why),
            Err(error) => self.refuse_removal(object, &error.to_string()),
        };
        if let Err(error) = done {
            error!(object = %key, %error, "its removal cannot be recorded; make room in the state directory");
        }
    }

    /// A deleted Kafka stays until deleted pools have committed and withdrawn their maps through it.
    fn is_still_needed(&self, key: &ObjectKey) -> bool {
        let is_deleted = |other: &Manifest| {
            other.meta().deletion_timestamp.is_some() && other.key().namespace == key.namespace
        };
        let serves_others = matches!(key.kind, Kind::Service | Kind::StatefulSet);
        let ours = [Kind::NatsShard, Kind::ForwarderPool, Kind::AssetGroup];
        serves_others
            && ours
                .into_iter()
                .any(|kind| self.store.of_kind(kind).any(is_deleted))
    }

    async fn remove_workload(&self, key: &ObjectKey) -> Result<Removal, PlatformError> {
        let id = WorkloadId::new(key.namespace.as_str(), key.name.as_str());
        let gone = self.backends.platform.remove(&id).await?;
        Ok(if gone {
            Removal::Done
        } else {
            Removal::UnderWay
        })
    }

    fn refuse_removal(&mut self, mut object: Manifest, why: &str) -> std::io::Result<()> {
        let before = object.conditions().to_vec();
        object.set_condition("DeletionRefused", why);
        report(&object, &before);
        self.store.set_status(object)
    }

    /// Removes what runs for objects that are not there any more.
    async fn remove_orphans(&self) {
        let owners: BTreeSet<Owner> = self
            .store
            .keys()
            .iter()
            .filter_map(|key| {
                Some(Identity::of(self.store.get(key)?.meta()).owner(key.kind.name()))
            })
            .collect();
        for workload in self.list().await {
            if !owners.contains(&workload.owner) {
                info!(workload = %workload.id, "belongs to nothing any more and is removed");
                if let Err(error) = self.backends.platform.remove(&workload.id).await {
                    warn!(workload = %workload.id, %error, "cannot be removed");
                }
            }
        }
    }

    /// For `operator status`; a system at rest writes nothing.
    async fn write_instances(&mut self) {
        let instances = self.list().await;
        if self.written.as_ref() == Some(&instances) {
            return;
        }
        match write_json(&self.state.join(INSTANCES_FILE), &instances) {
            Ok(()) => self.written = Some(instances),
            Err(error) => warn!(%error, "the list of instances cannot be written"),
        }
    }

    async fn list(&self) -> Vec<WorkloadState> {
        self.backends.platform.list().await.unwrap_or_else(|error| {
            warn!(%error, "the platform cannot be asked");
            Vec::new()
        })
    }
}

/// Logs what is newly said about an object: the one condition that tells the others' story.
fn report(object: &Manifest, before: &[Condition]) {
    let holds = |condition: &&Condition| condition.status == ConditionStatus::True;
    let story = |conditions: &[Condition]| conditions.iter().rfind(holds).cloned();
    let (old, new) = (story(before), story(object.conditions()));
    let Some(new) = new else { return };
    let same =
        old.is_some_and(|old| (old.kind, old.message) == (new.kind.clone(), new.message.clone()));
    if same {
        return;
    }
    let object = object.key();
    if new.kind == STALLED {
        warn!(%object, reason = new.reason, "{}: {}", new.kind, new.message);
    } else {
        info!(%object, reason = new.reason, "{}: {}", new.kind, new.message);
    }
}
