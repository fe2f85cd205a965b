//! The operator under test, and a meter between it and the API.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use kube::runtime::controller::Action;
use kube::runtime::{reflector, watcher};
use kube::{Api, api::ListParams, core::DeserializeGuard};
use ofa_crds::kafka::KafkaSettings;
use ofa_operator::controllers::control_plane::KafkaControlPlane;
use ofa_operator::controllers::{KsqlDbSettings, Settings};
use ofa_operator::engine::ksqldb::KsqlServers;
use ofa_operator::kube::kind::Kind;
use ofa_operator::kube::lease::Timing;
use ofa_operator::kube::shell::{Known, Shell, ShellError};
use ofa_operator::kube::{self as shell, KubernetesArgs};
use ofa_operator::metrics::Metrics;
use ofa_operator::platform::kubernetes::KubernetesPlatform;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

use crate::kafka::Kafka;

/// Counts writes, and lets through only so many requests.
#[derive(Clone)]
pub(crate) struct Meter {
    writes: Arc<AtomicU64>,
    left: Arc<AtomicI64>,
}

impl Meter {
    pub(crate) fn unlimited() -> Self {
        Self::with_budget(i64::MAX)
    }

    /// After this many requests the process is as good as dead: nothing of it reaches the API.
    pub(crate) fn with_budget(requests: i64) -> Self {
        Self {
            writes: Arc::default(),
            left: Arc::new(AtomicI64::new(requests)),
        }
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered {
            inner,
            meter: self.clone(),
        }
    }
}

pub(crate) struct Metered<S> {
    inner: S,
    meter: Meter,
}

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The lease is renewed for as long as the operator lives; that is no work on the resources.
        if !request.uri().path().contains("/leases") {
            if self.meter.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
                return Box::pin(async { Err("killed".into()) });
            }
            if request.method() != Method::GET {
                self.meter.writes.fetch_add(1, Ordering::SeqCst);
            }
        }
        let answer = self.inner.call(request);
        Box::pin(async { answer.await.map_err(Into::into) })
    }
}

/// What a process of the operator consists of, in one namespace.
pub(crate) fn shell(client: &Client, namespace: &str, kafka: &Kafka) -> Arc<Shell> {
    release("test", client, namespace, kafka)
}

/// The same of another release, whose forwarders have another image.
fn release(version: &str, client: &Client, namespace: &str, kafka: &Kafka) -> Arc<Shell> {
    Arc::new(Shell {
        platform: Arc::new(KubernetesPlatform::new(
            client.clone(),
            vec![namespace.to_owned()],
        )),
        control: Arc::new(kafka.clone()),
        groups: Arc::new(KafkaControlPlane::new("ofa_shard_map")),
        ksqldb: KsqlServers::new(20),
        settings: Settings {
            kafka: KafkaSettings::plain("kafka.example:9092"),
            control_topic: "ofa_shard_map".to_owned(),
            forwarder_image: format!("openfactory-fanout/forwarder:{version}"),
            serving_image: "openfactory-fanout/serving:test".to_owned(),
            ksqldb: KsqlDbSettings::default(),
        },
        http: reqwest::Client::new(),
        state: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(namespace),
        recorder: shell::recorder(client.clone(), "test"),
        metrics: Metrics::default(),
        client: client.clone(),
    })
}

/// An operator that works in one namespace until it is stopped.
pub(crate) struct Operator {
    pub(crate) stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    pub(crate) fn start(client: &Client, namespace: &str, kafka: &Kafka) -> Self {
        Self::start_with(client, namespace, kafka, None)
    }

    /// With a name it takes part in an election.
    pub(crate) fn start_with(
        client: &Client,
        namespace: &str,
        kafka: &Kafka,
        candidate: Option<(&str, Timing)>,
    ) -> Self {
        let shell = shell(client, namespace, kafka);
        Self::start_shell(shell, namespace, candidate)
    }

    /// Of another release.
    pub(crate) fn upgraded(client: &Client, namespace: &str, kafka: &Kafka) -> Self {
        let shell = release("next", client, namespace, kafka);
        Self::start_shell(shell, namespace, None)
    }

    fn start_shell(shell: Arc<Shell>, namespace: &str, candidate: Option<(&str, Timing)>) -> Self {
        let args = KubernetesArgs {
            namespaces: vec![namespace.to_owned()],
            no_leader_election: candidate.is_none(),
            lease_name: "operator".to_owned(),
            lease_namespace: Some(namespace.to_owned()),
            identity: None,
        };
        let (identity, timing) = candidate.unwrap_or_default();
        let identity = identity.to_owned();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            shell::run(shell, &args, &identity, timing, &stopped).await;
        });
        Self { stop, task }
    }

    /// Ends as on SIGTERM.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends as on SIGKILL.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// What the watches of an operator would know now.
pub(crate) async fn known(client: &Client, namespace: &str) -> Known {
    Known {
        shards: store(client, namespace).await,
        pools: store(client, namespace).await,
    }
}

async fn store<K: Kind>(client: &Client, namespace: &str) -> reflector::Store<DeserializeGuard<K>> {
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let (reader, mut writer) = reflector::store();
    writer.apply_watcher_event(&watcher::Event::Init);
    let all = api.list(&ListParams::default()).await.unwrap();
    let mut all = futures::stream::iter(all);
    while let Some(object) = all.next().await {
        writer.apply_watcher_event(&watcher::Event::InitApply(object));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    reader
}

/// One reconciliation, by a process that knows what there is.
pub(crate) async fn once<K: Kind>(
    shell: &Shell,
    admin: &Client,
    namespace: &str,
    name: &str,
) -> Result<Action, ShellError> {
    let known = known(admin, namespace).await;
    shell.reconcile::<K>(namespace, name, &known).await
}
