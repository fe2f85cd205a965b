//! Kubernetes: a pure translation ([`objects`]) and a thin client.

mod apply;
mod compare;
mod files;
pub mod labels;
pub mod objects;
mod pod;
mod state;

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;

use self::apply::{failed, is_conflict, is_missing};
use self::state::Asked;
use super::{
    DeploymentPlatform, EnvValue, FileContent, Owner, PlatformError, SecretData, SecretId,
    Workload, WorkloadId, WorkloadState,
};

/// Name of the platform for messages.
const NAME: &str = "kubernetes";

/// Workloads as StatefulSets and Deployments.
#[derive(Clone)]
pub struct KubernetesPlatform {
    client: Client,
    namespaces: Vec<String>,
    changes: watch::Sender<u64>,
}

impl KubernetesPlatform {
    /// Works through `client`, in these namespaces; in all if there are none.
    #[must_use]
    pub fn new(client: Client, namespaces: Vec<String>) -> Self {
        Self {
            client,
            namespaces,
            changes: watch::Sender::new(0),
        }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn pods_of(&self, id: &WorkloadId) -> Result<Vec<Pod>, PlatformError> {
        let labelled = ListParams::default().labels(&format!("{}={}", labels::WORKLOAD, id.name));
        let found = self.pods(&id.namespace).list(&labelled).await;
        Ok(found.map_err(failed("list", "Pods of", &id.name))?.items)
    }

    /// The StatefulSet or Deployment of a workload, whoever made it.
    async fn asked(&self, id: &WorkloadId) -> Result<Option<(Owner, Asked)>, PlatformError> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), &id.namespace);
        let found = sets.get_opt(&id.name).await;
        if let Some(set) = found.map_err(failed("read", "StatefulSet", &id.name))?
            && let Some(owner) = labels::owner_of(&set.metadata)
            && set.metadata.deletion_timestamp.is_none()
        {
            return Ok(Some((owner, asked_of_set(&set))));
        }
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &id.namespace);
        let found = deployments.get_opt(&id.name).await;
        let Some(deployment) = found.map_err(failed("read", "Deployment", &id.name))? else {
            return Ok(None);
        };
        let owner = labels::owner_of(&deployment.metadata)
            .filter(|_| deployment.metadata.deletion_timestamp.is_none());
        Ok(owner.map(|owner| (owner, asked_of_deployment(&deployment))))
    }

    /// StatefulSets and Deployments with a label, in a namespace or in all, and for whom each runs.
    async fn labelled(
        &self,
        namespace: Option<&str>,
        label: &str,
    ) -> Result<Vec<(WorkloadId, Option<Owner>)>, PlatformError> {
        let labelled = ListParams::default().labels(label);
        let mut found = Vec::new();
        for resource in [
            ApiResource::erase::<StatefulSet>(&()),
            ApiResource::erase::<Deployment>(&()),
        ] {
            let api: Api<kube::api::DynamicObject> = match namespace {
                Some(namespace) => apply::api(&self.client, namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            let all = api.list_metadata(&labelled).await;
            let all = all.map_err(failed("list", &resource.kind, label))?;
            found.extend(all.into_iter().map(|object| {
                let namespace = object.namespace().unwrap_or_default();
                let id = WorkloadId::new(namespace, object.name_any());
                (id, labels::owner_of(&object.metadata))
            }));
        }
        found.sort();
        Ok(found)
    }

    /// What the secrets of others hold that a workload uses: with another content it is another text. Each secret's
    /// unique id goes in, so that nobody learns a short password from it by trying.
    async fn inputs(&self, workload: &Workload) -> Result<String, PlatformError> {
        let mut inputs = Vec::new();
        for (secret, keys) in references(workload) {
            let found = self.secrets(&workload.id.namespace).get_opt(secret).await;
            let found = found.map_err(failed("read", "Secret", secret))?;
            let missing = |what: &str| {
                PlatformError::MissingSecret(
                    format!("{}/{secret}", workload.id.namespace),
                    format!("{what}; {} cannot start without it", workload.id.name),
                )
            };
            let required = keys.iter().any(|(_, optional)| !optional);
            if found.is_none() && required {
                return Err(missing("create it"));
            }
            let found = found.unwrap_or_default();
            let data = found.data.unwrap_or_default();
            for (key, optional) in keys {
                if !optional && !data.contains_key(key) {
                    return Err(missing(&format!("it has no key {key}, add it")));
                }
                inputs.push((
                    secret.to_owned(),
                    found.metadata.uid.clone(),
                    data.get(key).cloned(),
                ));
            }
        }
        Ok(crate::digest::digest(&inputs))
    }
}

/// The secrets of others that a workload uses, with the keys of each and whether a key may be missing.
fn references(workload: &Workload) -> BTreeMap<&str, Vec<(&str, bool)>> {
    let mut references: BTreeMap<&str, Vec<(&str, bool)>> = BTreeMap::new();
    let files = workload
        .files
        .iter()
        .filter_map(|file| match &file.content {
            FileContent::Secret { key, optional } => Some((key, *optional)),
            FileContent::Plain(_) | FileContent::Sensitive(_) | FileContent::Live(_) => None,
        });
    let variables = workload
        .env
        .iter()
        .filter_map(|variable| match &variable.value {
            EnvValue::Secret(key) => Some((key, false)),
            EnvValue::Text(_) | EnvValue::PodIp | EnvValue::PodName | EnvValue::BindAddress => None,
        });
    for (key, optional) in files.chain(variables) {
        let keys = references.entry(key.secret.as_str()).or_default();
        keys.push((key.key.as_str(), optional));
    }
    references
}

fn asked_of_set(set: &StatefulSet) -> Asked {
    let spec = set.spec.clone().unwrap_or_default();
    Asked {
        replicas: replicas(spec.replicas),
        template: mark(spec.template.metadata.as_ref()),
        stateful: true,
        service: spec.service_name,
        held_back: set.annotations().contains_key(labels::HELD_BACK),
    }
}

fn asked_of_deployment(deployment: &Deployment) -> Asked {
    let spec = deployment.spec.clone().unwrap_or_default();
    Asked {
        replicas: replicas(spec.replicas),
        template: mark(spec.template.metadata.as_ref()),
        stateful: false,
        service: None,
        held_back: deployment.annotations().contains_key(labels::HELD_BACK),
    }
}

/// One where nothing is said, as Kubernetes has it.
fn replicas(replicas: Option<i32>) -> u16 {
    u16::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

fn mark(
    meta: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
) -> Option<String> {
    meta?.annotations.as_ref()?.get(labels::TEMPLATE).cloned()
}

#[async_trait]
impl DeploymentPlatform for KubernetesPlatform {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn ensure(&self, workload: &Workload) -> Result<(), PlatformError> {
        let inputs = self.inputs(workload).await?;
        let wanted = objects::objects(workload, &inputs)?;
        apply::apply_all(&self.client, &workload.id, &workload.owner, &wanted).await
    }

    async fn remove(&self, id: &WorkloadId) -> Result<bool, PlatformError> {
        let children = apply::children(&self.client, id).await?;
        if let Some(owner) = children.owner() {
            apply::prune(&self.client, id, &owner, children, &[]).await?;
            return Ok(false);
        }
        Ok(self.pods_of(id).await?.is_empty())
    }

    async fn list(&self) -> Result<Vec<WorkloadState>, PlatformError> {
        let managed = format!("{}={}", labels::MANAGED_BY, labels::FIELD_MANAGER);
        let mut found = Vec::new();
        for scope in scopes(&self.namespaces) {
            found.extend(self.labelled(scope, &managed).await?);
        }
        found.sort();
        let mut states = Vec::with_capacity(found.len());
        for (id, _) in found {
            states.extend(self.observe(&id).await?);
        }
        Ok(states)
    }

    /// Asks for what carries the owner's label, and for nothing of the others, of which there may be thousands.
    async fn owned(
        &self,
        namespace: &str,
        owner: &Owner,
    ) -> Result<Vec<WorkloadId>, PlatformError> {
        let label = format!("{}={}", labels::owner_label(&owner.kind)?, owner.name);
        let mut found = self.labelled(Some(namespace), &label).await?;
        found.retain(|(_, of)| of.as_ref() == Some(owner));
        Ok(found.into_iter().map(|(id, _)| id).collect())
    }

    async fn observe(&self, id: &WorkloadId) -> Result<Option<WorkloadState>, PlatformError> {
        let Some((owner, asked)) = self.asked(id).await? else {
            return Ok(None);
        };
        let pods = self.pods_of(id).await?;
        Ok(Some(state::state(id, owner, &asked, pods)))
    }

    async fn restart(&self, id: &WorkloadId, ordinal: u16) -> Result<(), PlatformError> {
        let state = self.observe(id).await?;
        let instances = state.map(|state| state.instances).unwrap_or_default();
        let Some(instance) = instances.into_iter().find(|i| i.ordinal == ordinal) else {
            return Err(PlatformError::NotFound(format!(
                "instance {}",
                id.instance(ordinal)
            )));
        };
        // This very pod: not one that has taken its place since.
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: instance
                .process
                .as_deref()
                .map(|run| state::uid_of(run).to_owned()),
            resource_version: None,
        });
        match self
            .pods(&id.namespace)
            .delete(&instance.name, &params)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(failed("delete", "Pod", &instance.name)(error)),
        }
    }

    /// Never changes: the controllers watch the objects themselves, and know for whom each is.
    fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn instance_host(&self, id: &WorkloadId, ordinal: u16) -> Result<String, PlatformError> {
        // The headless service is called like the workload.
        Ok(state::host(id, ordinal, &id.name))
    }

    async fn resolve(&self, namespace: &str, address: &str) -> String {
        let full: Vec<String> = address
            .split(',')
            .map(|address| qualified(namespace, address.trim()))
            .collect();
        full.join(",")
    }

    async fn secret(&self, id: &SecretId) -> Result<Option<SecretData>, PlatformError> {
        let found = self.secrets(&id.namespace).get_opt(&id.name).await;
        let found = found.map_err(failed("read", "Secret", &id.name))?;
        let text = |ByteString(bytes)| String::from_utf8_lossy(&bytes).into_owned();
        Ok(found.map(|secret| {
            let data = secret.data.unwrap_or_default().into_iter();
            SecretData(data.map(|(key, value)| (key, text(value))).collect())
        }))
    }

    async fn create_secret(
        &self,
        id: &SecretId,
        owner: &Owner,
        data: &SecretData,
    ) -> Result<(), PlatformError> {
        let labels = labels::owner_labels(owner)?;
        let bytes = |(key, value): (&String, &String)| {
            (key.clone(), ByteString(value.clone().into_bytes()))
        };
        let secret = Secret {
            metadata: labels::meta(&id.namespace, &id.name, owner, labels),
            data: Some(data.0.iter().map(bytes).collect()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(labels::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.secrets(&id.namespace).create(&params, &secret).await {
            Ok(_) => Ok(()),
            // What exists stays as it is: its passwords are in use.
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(failed("create", "Secret", &id.name)(error)),
        }
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), PlatformError> {
        let api = self.secrets(&id.namespace);
        let found = api
            .get_opt(&id.name)
            .await
            .map_err(failed("read", "Secret", &id.name))?;
        // One that the user has put there himself is his.
        if found.is_none_or(|secret| labels::owner_of(&secret.metadata).is_none()) {
            return Ok(());
        }
        match api.delete(&id.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(failed("delete", "Secret", &id.name)(error)),
        }
    }
}

/// The namespaces to look into: `None` for all of them.
#[must_use]
pub fn scopes(namespaces: &[String]) -> Vec<Option<&str>> {
    if namespaces.is_empty() {
        vec![None]
    } else {
        namespaces
            .iter()
            .map(|namespace| Some(namespace.as_str()))
            .collect()
    }
}

/// A plain Service name as it is known in other namespaces too.
fn qualified(namespace: &str, address: &str) -> String {
    let (host, port) = address.split_once(':').unwrap_or((address, ""));
    if host.contains('.') || host == "localhost" {
        return address.to_owned();
    }
    let colon = if port.is_empty() { "" } else { ":" };
    format!("{host}.{namespace}.svc{colon}{port}")
}

#[cfg(test)]
mod tests;
