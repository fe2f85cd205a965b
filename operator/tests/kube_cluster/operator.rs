//! The operator under test.

use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::Client;
use kube::runtime::controller::Action;
use kube::runtime::{reflector, watcher};
use kube::{Api, api::ListParams, core::DeserializeGuard};
use ofa_crds::kafka::KafkaSettings;
use ofa_operator::controllers::news::Readers;
use ofa_operator::controllers::{Backends, KsqlDbSettings, Settings};
use ofa_operator::engine::ksqldb::KsqlServers;
use ofa_operator::kube::kind::Kind;
use ofa_operator::kube::lease::Timing;
use ofa_operator::kube::shell::{Known, Shell, ShellError};
use ofa_operator::kube::{self as shell, KubernetesArgs};
use ofa_operator::metrics::Metrics;
use ofa_operator::platform::kubernetes::KubernetesPlatform;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kafka::Kafka;

/// What a process of the operator consists of, in one namespace.
pub(crate) fn shell(client: &Client, namespace: &str, kafka: &Kafka) -> Arc<Shell> {
    release("test", client, vec![namespace.to_owned()], kafka)
}

/// The same of another release, whose programs have other images; in all namespaces if there are none.
fn release(version: &str, client: &Client, namespaces: Vec<String>, kafka: &Kafka) -> Arc<Shell> {
    let kafka_files = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(namespaces.concat());
    Arc::new(Shell {
        backends: Backends {
            platform: Arc::new(KubernetesPlatform::new(client.clone(), namespaces)),
            control: Arc::new(kafka.clone()),
            groups: Arc::new(kafka.clone()),
            ksqldb: KsqlServers::new(20),
            settings: Settings {
                kafka: KafkaSettings::plain("kafka.example:9092"),
                control_topic: "ofa_shard_map".to_owned(),
                forwarder_image: format!("openfactory-fanout/forwarder:{version}"),
                serving_image: format!("openfactory-fanout/serving:{version}"),
                ksqldb: KsqlDbSettings::default(),
            },
            http: reqwest::Client::new(),
            readers: Readers::default(),
            kafka_files,
        },
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
        let args = args(namespace, candidate.is_some());
        let (identity, timing) = candidate.unwrap_or_default();
        Self::start_shell(shell, args, identity, timing)
    }

    /// Of another release.
    pub(crate) fn upgraded(client: &Client, namespace: &str, kafka: &Kafka) -> Self {
        let shell = release("next", client, vec![namespace.to_owned()], kafka);
        Self::start_shell(shell, args(namespace, false), "", Timing::default())
    }

    /// As a chart's pod does, with these arguments.
    pub(crate) fn start_with_args(client: &Client, args: KubernetesArgs, kafka: &Kafka) -> Self {
        let shell = release("test", client, args.namespaces.clone(), kafka);
        let identity = args.identity();
        Self::start_shell(shell, args, &identity, Timing::default())
    }

    fn start_shell(
        shell: Arc<Shell>,
        args: KubernetesArgs,
        identity: &str,
        timing: Timing,
    ) -> Self {
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

fn args(namespace: &str, elects: bool) -> KubernetesArgs {
    KubernetesArgs {
        namespaces: vec![namespace.to_owned()],
        no_leader_election: !elects,
        lease_name: "operator".to_owned(),
        lease_namespace: Some(namespace.to_owned()),
        identity: None,
    }
}

/// What the watches of an operator would know now.
pub(crate) async fn known(client: &Client, namespace: &str) -> Known {
    Known {
        shards: store(client, namespace).await,
        pools: store(client, namespace).await,
        groups: store(client, namespace).await,
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
