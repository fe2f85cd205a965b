//! The Kubernetes cluster that a command is about.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use ofa_operator::platform::DeploymentPlatform as _;
use ofa_operator::platform::kubernetes::KubernetesPlatform;
use ofa_operator::resources::Manifest;
use ofa_operator::status_table::View;
use serde::de::DeserializeOwned;

/// Which cluster, and what of it; as kubectl takes it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kubernetes")]
pub(crate) struct ClusterArgs {
    /// Ask the Kubernetes cluster of the current context, as `kubectl ofa` does
    #[arg(long)]
    kube: bool,
    /// File that tells how the cluster is reached; as for kubectl (KUBECONFIG) if not set
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of that file; the current one if not set
    #[arg(long)]
    context: Option<String>,
    /// Namespace; that of the context if not set
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// Whether this program is called as a plugin of kubectl.
pub(crate) fn is_plugin() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(Path::file_stem) == Some(OsStr::new("kubectl-ofa"))
}

/// A cluster that answers.
pub(crate) struct Cluster {
    client: Client,
    /// Where an object is that names no namespace.
    pub(crate) namespace: String,
    all_namespaces: bool,
}

impl ClusterArgs {
    /// Whether a cluster is asked at all.
    pub(crate) fn is_meant(&self) -> bool {
        self.kube || self.kubeconfig.is_some() || self.context.is_some() || is_plugin()
    }

    /// A client of the cluster.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        const HELP: &str = "how to reach the cluster is not known; set KUBECONFIG or --kubeconfig";
        ofa_operator::tls::install_provider();
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).context(HELP)?;
                Config::from_custom_kubeconfig(file, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.context(HELP)?;
        let own = config.default_namespace.clone();
        Ok(Cluster {
            client: Client::try_from(config).context(HELP)?,
            namespace: self.namespace.clone().unwrap_or(own),
            all_namespaces: self.all_namespaces,
        })
    }

    /// kubectl, for this cluster.
    pub(crate) fn kubectl(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("kubectl");
        if let Some(path) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(path);
        }
        if let Some(context) = &self.context {
            command.arg("--context").arg(context);
        }
        command
    }
}

impl Cluster {
    /// All resources, and what runs for them.
    pub(crate) async fn view(&self) -> anyhow::Result<View> {
        let namespaces = self.namespaces().into_iter().map(ToOwned::to_owned);
        let platform = KubernetesPlatform::new(self.client.clone(), namespaces.collect());
        Ok(View {
            objects: self.objects().await?,
            instances: platform.list().await.context("what runs is not told")?,
            problems: Vec::new(),
        })
    }

    /// All resources of our kinds.
    pub(crate) async fn objects(&self) -> anyhow::Result<Vec<Manifest>> {
        let mut objects = Vec::new();
        objects.extend(self.list().await?.into_iter().map(Manifest::NatsShard));
        objects.extend(self.list().await?.into_iter().map(Manifest::ForwarderPool));
        objects.extend(self.list().await?.into_iter().map(Manifest::AssetGroup));
        Ok(objects)
    }

    /// Names of the Services that match, with their namespaces.
    pub(crate) async fn services(
        &self,
        wanted: &ListParams,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let api: Api<k8s_openapi::api::core::v1::Service> = self.api();
        let found = api.list(wanted).await.context("Services are not told")?;
        let named = found
            .items
            .into_iter()
            .filter_map(|service| Some((service.metadata.namespace?, service.metadata.name?)));
        Ok(named.collect())
    }

    fn namespaces(&self) -> Vec<&str> {
        if self.all_namespaces {
            Vec::new()
        } else {
            vec![&self.namespace]
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self.namespaces().first() {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn list<K>(&self) -> anyhow::Result<Vec<Box<K>>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let listed = self.api::<K>().list(&ListParams::default()).await;
        let kind = K::kind(&());
        let found = listed.with_context(|| {
            format!("{kind}s are not told; are the CRDs installed (kubectl apply -f crds/)?")
        })?;
        Ok(found.items.into_iter().map(Box::new).collect())
    }
}
