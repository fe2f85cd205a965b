//! The three controllers and what calls them up.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, future};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::kind::Kind;
use super::shell::{Known, Shell, ShellError};
use crate::controllers::news::News;
use crate::platform::kubernetes::labels;

/// Changes that come together are taken together: a rollout changes pods and their set many times a second.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Resources of one kind that are reconciled at a time. A reconciliation waits for the API most of its time; more would
/// only press on it.
const CONCURRENCY: u16 = 8;

/// What is tried again after an error, which is the API's.
const RETRY: Duration = Duration::from_secs(5);

struct Reach {
    shell: Arc<Shell>,
    known: Known,
}

/// Runs the controllers of all kinds in one namespace, or in all, until stopped.
pub async fn run(shell: Arc<Shell>, namespace: Option<&str>, stop: &CancellationToken) {
    let client = &shell.client;
    let shards = Controller::new(api::<DeserializeGuard<NatsShard>>(client, namespace), any());
    let pools = Controller::new(
        api::<DeserializeGuard<ForwarderPool>>(client, namespace),
        any(),
    );
    let groups = Controller::new(
        api::<DeserializeGuard<AssetGroup>>(client, namespace),
        any(),
    );
    let reach = Arc::new(Reach {
        known: Known {
            shards: shards.store(),
            pools: pools.store(),
            groups: groups.store(),
        },
        shell: shell.clone(),
    });

    let of_pools = news(&reach, pools.store());
    let of_groups = news(&reach, groups.store());
    let all_pools = pools.store();
    let pools = pools
        .watches(
            api::<DeserializeGuard<NatsShard>>(client, namespace),
            any(),
            move |shard| same_namespace(&all_pools, shard.meta().namespace.as_deref()),
        )
        .reconcile_on(of_pools);
    let pools = drive(children(pools, client, namespace), reach.clone(), stop);
    let shards = drive(children(shards, client, namespace), reach.clone(), stop);
    let groups = groups
        .reconcile_on(of_groups)
        .reconcile_all_on(news_of_ksqldb(&shell));
    let groups = drive(children(groups, client, namespace), reach, stop);
    future::join3(shards, pools, groups).await;
}

/// All watches by which a resource hears of what was made for it.
fn children<K: Kind>(
    controller: Controller<DeserializeGuard<K>>,
    client: &Client,
    namespace: Option<&str>,
) -> Controller<DeserializeGuard<K>> {
    let kind = K::kind(&()).into_owned();
    let name = labels::component(&kind);
    let ours = || any().labels(&format!("{}={name}", labels::NAME));
    let store = controller.store();
    controller
        .owns(api::<StatefulSet>(client, namespace), ours())
        .owns(api::<Deployment>(client, namespace), ours())
        .owns(api::<Service>(client, namespace), ours())
        .owns(api::<PodDisruptionBudget>(client, namespace), ours())
        .owns(
            api::<PartialObjectMeta<ServiceAccount>>(client, namespace),
            ours(),
        )
        .watches(
            api::<PartialObjectMeta<Pod>>(client, namespace),
            ours(),
            move |pod| {
                let label = labels::owner_label(&kind).ok()?;
                let owner = pod.labels().get(label)?;
                Some(ObjectRef::new(owner).within(&pod.namespace()?))
            },
        )
        // Without their contents, which are nobody's business here.
        .watches(
            api::<PartialObjectMeta<Secret>>(client, namespace),
            any(),
            move |secret| users_of_secret(&store, &secret),
        )
}

/// The resources that refer to a secret, and the one that it was made for.
fn users_of_secret<K: Kind>(
    store: &Store<DeserializeGuard<K>>,
    secret: &PartialObjectMeta<Secret>,
) -> Vec<ObjectRef<DeserializeGuard<K>>> {
    let (name, namespace) = (secret.name_any(), secret.namespace());
    let owner = labels::owner_of(&secret.metadata).filter(|owner| owner.kind == K::kind(&()));
    let uses = |object: &K| {
        object.secrets().contains(&name.as_str())
            || owner
                .as_ref()
                .is_some_and(|owner| owner.name == object.name_any())
    };
    let all = store.state().into_iter();
    all.filter(|guard| guard.meta().namespace == namespace && guard.0.as_ref().is_ok_and(uses))
        .map(|guard| ObjectRef::from_obj(guard.as_ref()))
        .collect()
}

fn same_namespace<K: Kind>(
    store: &Store<DeserializeGuard<K>>,
    namespace: Option<&str>,
) -> Vec<ObjectRef<DeserializeGuard<K>>> {
    let all = store.state().into_iter();
    all.filter(|guard| guard.meta().namespace.as_deref() == namespace)
        .map(|guard| ObjectRef::from_obj(guard.as_ref()))
        .collect()
}

/// The resources of a kind that go by what there is news of in Kafka.
fn news<K: Kind>(
    reach: &Arc<Reach>,
    all: Store<DeserializeGuard<K>>,
) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + 'static {
    let (shell, listener) = (reach.shell.clone(), reach.shell.backends.control.news());
    let begin = (shell, all, listener);
    futures::stream::unfold(begin, |(shell, all, mut listener)| async {
        let concerned: Vec<_> = match listener.next().await? {
            News::OfAnything => {
                let all = all.state().into_iter();
                all.map(|guard| ObjectRef::from_obj(guard.as_ref()))
                    .collect()
            }
            News::Of(subject) => {
                let readers = shell.backends.readers.of(&subject, &K::kind(&()));
                let readers = readers.iter();
                readers
                    .map(|it| ObjectRef::new(&it.name).within(&it.namespace))
                    .collect()
            }
        };
        Some((futures::stream::iter(concerned), (shell, all, listener)))
    })
    .flatten()
}

/// A ksqlDB server has something new to tell.
fn news_of_ksqldb(shell: &Shell) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(shell.backends.ksqldb.watch(), |mut news| async {
        news.changed().await.ok().map(|()| ((), news))
    })
}

/// A closed list of everything: resources are few, and those of others carry no label of ours.
fn any() -> watcher::Config {
    watcher::Config::default()
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn drive<K: Kind>(
    controller: Controller<DeserializeGuard<K>>,
    reach: Arc<Reach>,
    stop: &CancellationToken,
) {
    let kind = K::kind(&());
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(CONCURRENCY);
    controller
        .with_config(config)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile::<K>, retry::<K>, reach)
        .for_each(|result| {
            match result {
                Ok((object, _)) => debug!(%kind, %object, "reconciled"),
                Err(error) => warn!(%kind, %error, "trying again"),
            }
            future::ready(())
        })
        .await;
}

async fn reconcile<K: Kind>(
    object: Arc<DeserializeGuard<K>>,
    reach: Arc<Reach>,
) -> Result<Action, ShellError> {
    let namespace = object.namespace().unwrap_or_default();
    let result = reach
        .shell
        .reconcile::<K>(&namespace, &object.name_any(), &reach.known)
        .await;
    reach
        .shell
        .metrics
        .reconciled(&K::kind(&()), result.is_ok());
    result
}

fn retry<K: Kind>(_: Arc<DeserializeGuard<K>>, _: &ShellError, _: Arc<Reach>) -> Action {
    Action::requeue(RETRY)
}
