//! One reconciliation of one resource of the Kubernetes API: read it, hold it by a finalizer, reconcile it, say how far
//! it is. What it is that is reconciled knows nothing of all this.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use ofa_crds::api::{
    Condition, ConditionStatus, ForwarderPool, NatsShard, RECONCILING, STALLED, set_condition,
};
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{info, warn};

use super::kind::Kind;
use crate::controllers::control_plane::{ControlPlane, PoolRef};
use crate::controllers::forwarder_pool::validate::control_name;
use crate::controllers::group_plane::GroupPlane;
use crate::controllers::{Context, Identity, Removal, Settings, kafka_connection};
use crate::engine::ksqldb::KsqlServers;
use crate::metrics::Metrics;
use crate::platform::kubernetes::labels::FIELD_MANAGER;
use crate::platform::{DeploymentPlatform, WorkloadId};

/// Keeps a resource until what was made for it is gone.
pub const FINALIZER: &str = "fanout.openfactory.io/finalizer";

/// Everything is looked at this often even if nothing seems to have changed. Changes are told by watches; this finds
/// what a watch has missed, and costs reads only.
const RESYNC: Duration = Duration::from_secs(600);

/// The first look after a step is taken this soon: much of what is waited for is told by no watch.
const SOONEST: Duration = Duration::from_secs(1);

/// What does not come about is looked at ever more rarely, but still this often.
const LATEST: Duration = Duration::from_secs(60);

/// Why a reconciliation was given up; it is tried again.
#[derive(Debug, Error)]
pub enum ShellError {
    /// The API refused.
    #[error("the Kubernetes API: {0}")]
    Api(#[from] kube::Error),
}

/// All resources of our kinds that others depend on, as the watches know them.
#[derive(Clone)]
pub struct Known {
    /// Shards.
    pub shards: Store<DeserializeGuard<NatsShard>>,
    /// Pools.
    pub pools: Store<DeserializeGuard<ForwarderPool>>,
}

/// What reconciliations work with.
pub struct Shell {
    /// The API.
    pub client: Client,
    /// Where workloads run.
    pub platform: Arc<dyn DeploymentPlatform>,
    /// Kafka.
    pub control: Arc<dyn ControlPlane>,
    /// Kafka, as far as groups need it.
    pub groups: Arc<dyn GroupPlane>,
    /// The ksqlDB servers.
    pub ksqldb: KsqlServers,
    /// What the operator was started with.
    pub settings: Settings,
    /// For questions to NATS nodes.
    pub http: reqwest::Client,
    /// Directory for the files with which the operator itself reaches Kafka.
    pub state: PathBuf,
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
        let (shards, pools) = self.others(namespace, known).await;
        let status = object
            .reconcile(&self.context(&shards, &pools, &self.kafka_files()))
            .await;
        if let Some(replicas) = object.scale_to(&status) {
            self.scale(&api, &object, replicas).await?;
        }
        self.say(&api, &object, &status).await?;
        let next = retry_after(K::conditions(&status), Timestamp::now());
        let next = K::look_again(&status).map_or(next, |soon| soon.min(next));
        Ok(Action::requeue(next))
    }

    /// Directory for the files with which the operator itself reaches Kafka.
    fn kafka_files(&self) -> PathBuf {
        self.state.join("kafka")
    }

    fn context<'a>(
        &'a self,
        shards: &'a [NatsShard],
        pools: &'a [PoolRef],
        kafka_files: &'a Path,
    ) -> Context<'a> {
        Context {
            platform: self.platform.as_ref(),
            control: self.control.as_ref(),
            groups: self.groups.as_ref(),
            ksqldb: &self.ksqldb,
            kafka_files,
            settings: &self.settings,
            http: &self.http,
            shards,
            scales: true,
            pools,
        }
    }

    /// Shards and pools of the namespace; none is known of another one's.
    async fn others(&self, namespace: &str, known: &Known) -> (Vec<NatsShard>, Vec<PoolRef>) {
        let shards = in_namespace(&known.shards, namespace);
        let files = self.kafka_files();
        let mut pools = Vec::new();
        for pool in in_namespace(&known.pools, namespace) {
            let identity = Identity::of(&pool.metadata);
            let kafka = kafka_connection::for_operator(
                &pool.spec.kafka,
                &self.settings.kafka,
                namespace,
                self.platform.as_ref(),
                &files,
            );
            // One whose secrets are missing is left out and says so itself.
            if let Ok(kafka) = kafka.await {
                pools.push(PoolRef {
                    name: control_name(&identity),
                    namespace: namespace.to_owned(),
                    deleted: pool.metadata.deletion_timestamp.is_some(),
                    kafka,
                });
            }
        }
        (shards, pools)
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
        let (shards, pools) = self.others(&namespace, known).await;
        let files = self.kafka_files();
        let context = self.context(&shards, &pools, &files);
        let removal = if self.is_anothers(&object).await {
            Ok(Removal::Done)
        } else {
            object.finalize(&context).await
        };
        match removal {
            Ok(Removal::Done) => {
                let_go(api, &object).await?;
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
        let found = self.platform.observe(&id).await;
        matches!(found, Ok(Some(state)) if state.owner != owner)
    }

    /// Writes a status that differs from the one read, and tells of what is new in it.
    async fn say<K: Kind>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &K::Status,
    ) -> Result<(), ShellError> {
        if object.status() == Some(status) {
            return Ok(());
        }
        write_status(api, &object.name_any(), json!(status)).await?;
        let before = object.status().map_or(&[][..], K::conditions);
        if let Some(news) = news(before, K::conditions(status)) {
            self.tell(object, news).await;
        }
        Ok(())
    }

    /// Sets the number through the scale subresource, where `kubectl scale` and others set it too: it is the version
    /// that was decided by that must still stand.
    async fn scale<K: Kind>(
        &self,
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

    async fn say_refused<K: Kind>(
        &self,
        api: &Api<K>,
        object: &K,
        why: &str,
    ) -> Result<(), ShellError> {
        let mut status = object.status().cloned().unwrap_or_default();
        let condition = Condition {
            kind: "DeletionRefused".to_owned(),
            status: ConditionStatus::True,
            observed_generation: object.meta().generation,
            last_transition_time: now_text(),
            reason: "DeletionRefused".to_owned(),
            message: why.to_owned(),
        };
        set_condition(K::conditions_mut(&mut status), condition);
        self.say(api, object, &status).await
    }

    /// What cannot be read is said so on it, and the others go on.
    async fn say_invalid<K: Kind>(
        &self,
        api: &Api<K>,
        name: &str,
        generation: Option<i64>,
        why: &str,
    ) -> Result<(), ShellError> {
        warn!(kind = %K::kind(&()), name, why, "cannot be read");
        let condition = |kind: &str, status| Condition {
            kind: kind.to_owned(),
            status,
            observed_generation: generation,
            last_transition_time: now_text(),
            reason: "Invalid".to_owned(),
            message: format!(
                "this operator cannot read it: {why}; correct it, or install the operator's own CRDs"
            ),
        };
        let status = json!({
            "observedGeneration": generation,
            "conditions": [
                condition("Ready", ConditionStatus::False),
                condition(STALLED, ConditionStatus::True),
            ],
        });
        write_status(api, name, status).await
    }

    async fn tell<K: Kind>(&self, object: &K, news: &Condition) {
        let warning = news.kind == STALLED || news.kind == "DeletionRefused";
        let (kind, name) = (K::kind(&()), object.name_any());
        info!(%kind, name, reason = news.reason, "{}: {}", news.kind, news.message);
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: news.reason.clone(),
            note: Some(news.message.chars().take(EVENT_NOTE).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // An event that is lost costs nothing but itself.
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event is lost");
        }
    }
}

/// Longest note of an event that the API takes.
const EVENT_NOTE: usize = 1024;

fn in_namespace<K: Kind>(store: &Store<DeserializeGuard<K>>, namespace: &str) -> Vec<K> {
    let all = store.state().into_iter();
    let mut found: Vec<K> = all
        .filter_map(|guard| guard.0.clone().ok())
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace))
        .collect();
    found.sort_by_key(kube::ResourceExt::name_any);
    found
}

/// Puts the finalizer on; returns whether it had none.
async fn hold<K: Kind>(api: &Api<K>, object: &K) -> Result<bool, ShellError> {
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|held| held == FINALIZER) {
        return Ok(false);
    }
    finalizers.push(FINALIZER.to_owned());
    write_finalizers(api, object, &finalizers).await?;
    Ok(true)
}

async fn let_go<K: Kind>(api: &Api<K>, object: &K) -> Result<(), ShellError> {
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

async fn write_status<K: Kind>(api: &Api<K>, name: &str, status: Value) -> Result<(), ShellError> {
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

/// Nothing is to be said about what is gone.
fn ignore_gone(result: Result<(), kube::Error>) -> Result<(), ShellError> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}

fn now_text() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The one condition that tells the others' story, if it tells another one than before.
fn news<'a>(before: &[Condition], after: &'a [Condition]) -> Option<&'a Condition> {
    let holds = |condition: &&Condition| condition.status == ConditionStatus::True;
    let new = after.iter().rfind(holds)?;
    let old = before.iter().rfind(holds);
    let same = old.is_some_and(|old| (&old.kind, &old.reason) == (&new.kind, &new.reason));
    (!same).then_some(new)
}

/// When to look again: rarely at what is settled, soon at what has just begun to move, ever later at what does not
/// come about.
fn retry_after(conditions: &[Condition], now: Timestamp) -> Duration {
    let open = conditions.iter().find(|condition| {
        [RECONCILING, STALLED].contains(&condition.kind.as_str())
            && condition.status == ConditionStatus::True
    });
    match open {
        None => RESYNC,
        Some(condition) => growing(condition.last_transition_time.parse().ok(), now),
    }
}

/// A quarter of the time it has taken so far.
fn growing(since: Option<Timestamp>, now: Timestamp) -> Duration {
    let waited = since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
    Duration::from_secs_f64(waited.max(0.0) / 4.0).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status,
            observed_generation: None,
            last_transition_time: "2026-01-01T00:00:00Z".to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn what_does_not_come_about_is_looked_at_ever_more_rarely() {
        use ConditionStatus::{False, True};
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| {
            let open = [condition(RECONCILING, True, "A")];
            retry_after(&open, begin + jiff::SignedDuration::from_secs(seconds)).as_secs()
        };
        assert_eq!([after(0), after(40), after(100_000)], [1, 10, 60]);
        let settled = [
            condition("Ready", True, "A"),
            condition(STALLED, False, "A"),
        ];
        assert_eq!(retry_after(&settled, begin), RESYNC);
    }

    #[test]
    fn only_another_story_is_news() {
        use ConditionStatus::{False, True};
        let moving = [
            condition("Ready", False, "A"),
            condition(RECONCILING, True, "A"),
        ];
        let ready = [
            condition("Ready", True, "B"),
            condition(RECONCILING, False, "B"),
        ];
        assert_eq!(
            news(&[], &moving).map(|c| c.kind.as_str()),
            Some(RECONCILING)
        );
        assert_eq!(news(&moving, &moving), None);
        assert_eq!(
            news(&moving, &ready).map(|c| c.kind.as_str()),
            Some("Ready")
        );
    }
}
