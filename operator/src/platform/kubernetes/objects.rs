//! The pure translation of a workload into the objects of Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, Service, ServiceAccount, ServicePort,
    ServiceSpec, VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use kube::core::ApiResource;
use ofa_crds::api::SpreadMode;
use serde::Serialize;
use serde_json::Value;

use super::{files, labels, pod};
use crate::digest::digest;
use crate::platform::{
    DataVolume, PlatformError, ServiceName, UpdateStrategy, Workload, WorkloadKind,
};

/// An object as it is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Of which type.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// The whole of it, with `apiVersion` and `kind`.
    pub value: Value,
}

/// Every type of object that a workload may have, in the order in which they are applied: what is mounted, and the
/// name under which instances look for each other, before what uses it; the budget before there is anything to evict.
#[must_use]
pub fn types() -> [ApiResource; 6] {
    [
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<StatefulSet>(&()),
        ApiResource::erase::<Deployment>(&()),
    ]
}

/// All objects of a workload, in the order of [`types`]. `inputs` stands for the secrets of others that it uses.
///
/// # Errors
/// `Unsupported` when the owner is not one of our kinds.
pub fn objects(workload: &Workload, inputs: &str) -> Result<Vec<Object>, PlatformError> {
    let labels = labels::workload_labels(&workload.id, &workload.owner)?;
    let chosen = digest(&(&workload.chosen, inputs));
    let translation = Translation {
        workload,
        labels,
        chosen,
    };
    let files::Texts { mut fixed, live } = files::texts(&workload.files);
    let inputs = format!("{inputs} {}", digest(&fixed));
    fixed.extend(live);
    let mut objects = vec![object(&translation.service_account())];
    if !fixed.is_empty() {
        objects.push(object(&translation.secret(fixed)));
    }
    let services = workload.services.iter();
    objects.extend(services.map(|name| object(&translation.service(name))));
    objects.push(object(&translation.budget()));
    objects.push(match &workload.kind {
        WorkloadKind::Stateful { data } => {
            object(&translation.stateful_set(data.as_ref(), &inputs))
        }
        WorkloadKind::Stateless { .. } => object(&translation.deployment(&inputs)),
    });
    Ok(objects)
}

fn object<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Object {
    Object {
        resource: ApiResource::erase::<K>(&()),
        name: object.meta().name.clone().unwrap_or_default(),
        value: serde_json::to_value(object).unwrap_or_default(),
    }
}

struct Translation<'a> {
    workload: &'a Workload,
    labels: BTreeMap<String, String>,
    chosen: String,
}

impl Translation<'_> {
    fn meta(&self, name: &str) -> ObjectMeta {
        let Workload { id, owner, .. } = self.workload;
        labels::meta(&id.namespace, name, owner, self.labels.clone())
    }

    /// Metadata of the object that has the pod template.
    fn meta_with_choice(&self) -> ObjectMeta {
        let choice = (labels::CHOSEN.to_owned(), self.chosen.clone());
        ObjectMeta {
            annotations: Some([choice].into()),
            ..self.meta(self.name())
        }
    }

    fn name(&self) -> &str {
        &self.workload.id.name
    }

    fn selector(&self) -> BTreeMap<String, String> {
        labels::selector(&self.workload.id, &self.workload.owner)
    }

    fn label_selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector()),
            ..LabelSelector::default()
        }
    }

    /// An account without any right: the programs never speak to the API.
    fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.meta(self.name()),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    fn secret(&self, texts: BTreeMap<String, String>) -> Secret {
        let bytes =
            |(key, text): (String, String)| (key, k8s_openapi::ByteString(text.into_bytes()));
        Secret {
            metadata: self.meta(&files::secret_name(self.name())),
            data: Some(texts.into_iter().map(bytes).collect()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }

    fn service(&self, service: &ServiceName) -> Service {
        let ServiceName {
            name,
            headless,
            ports,
        } = service;
        let port = |port: &crate::platform::ServicePort| ServicePort {
            name: Some(port.name.clone()),
            port: i32::from(port.port),
            target_port: Some(IntOrString::Int(i32::from(port.target))),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        };
        Service {
            metadata: self.meta(name),
            spec: Some(ServiceSpec {
                selector: Some(self.selector()),
                cluster_ip: headless.then(|| "None".to_owned()),
                // Instances look for each other before any of them is ready.
                publish_not_ready_addresses: headless.then_some(true),
                ports: Some(ports.iter().map(port).collect()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// Hosts are emptied one instance after the other. An instance that is broken anyway holds up nobody.
    fn budget(&self) -> PodDisruptionBudget {
        PodDisruptionBudget {
            metadata: self.meta(self.name()),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(self.label_selector()),
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        }
    }

    fn stateful_set(&self, data: Option<&DataVolume>, inputs: &str) -> StatefulSet {
        let workload = self.workload;
        let strategy = match workload.update {
            UpdateStrategy::Rolling => "RollingUpdate",
            UpdateStrategy::Gated => "OnDelete",
        };
        let headless = workload.services.iter().find(|service| service.headless);
        let claims: Vec<_> = data.and_then(claim).into_iter().collect();
        let retention =
            (!claims.is_empty()).then(|| StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            });
        StatefulSet {
            metadata: self.meta_with_choice(),
            spec: Some(StatefulSetSpec {
                replicas: Some(i32::from(workload.replicas)),
                selector: self.label_selector(),
                service_name: headless.map(|service| service.name.clone()),
                // All at once: each waits for the others before it is ready.
                pod_management_policy: Some("Parallel".to_owned()),
                update_strategy: Some(StatefulSetUpdateStrategy {
                    type_: Some(strategy.to_owned()),
                    rolling_update: None,
                }),
                template: pod::template(workload, self.labels.clone(), inputs),
                volume_claim_templates: Some(claims).filter(|claims| !claims.is_empty()),
                persistent_volume_claim_retention_policy: retention,
                ..StatefulSetSpec::default()
            }),
            ..StatefulSet::default()
        }
    }

    fn deployment(&self, inputs: &str) -> Deployment {
        let workload = self.workload;
        // Where no two may lie together, a new one has room only when an old one has gone.
        let (surge, unavailable) = match workload.spread.mode {
            SpreadMode::Required => (0, 1),
            SpreadMode::Preferred => (1, 0),
        };
        Deployment {
            metadata: self.meta_with_choice(),
            spec: Some(DeploymentSpec {
                replicas: Some(i32::from(workload.replicas)),
                selector: self.label_selector(),
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(IntOrString::Int(surge)),
                        max_unavailable: Some(IntOrString::Int(unavailable)),
                    }),
                }),
                template: pod::template(workload, self.labels.clone(), inputs),
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }
}

fn claim(data: &DataVolume) -> Option<PersistentVolumeClaim> {
    let size = data.size.clone()?;
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(pod::DATA_VOLUME.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    })
}
