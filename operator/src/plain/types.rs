//! The subset, as strict as it can be: a field that is not here is refused by name.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ofa_crds::api::Condition;
use serde::{Deserialize, Serialize};

use super::pod::{PodTemplate, VolumeClaim};

/// apps/v1 Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deployment {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What is to run.
    pub spec: DeploymentSpec,
    /// What runs.
    #[serde(default)]
    pub status: Option<PlainStatus>,
}

/// What a Deployment runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentSpec {
    /// Number of instances; one if not set.
    #[serde(default = "one")]
    pub replicas: u16,
    /// Must match the template's labels.
    pub selector: LabelSelector,
    /// One instance.
    pub template: PodTemplate,
}

/// apps/v1 StatefulSet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatefulSet {
    /// `apps/v1`.
    pub api_version: String,
    /// `StatefulSet`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What is to run.
    pub spec: StatefulSetSpec,
    /// What runs.
    #[serde(default)]
    pub status: Option<PlainStatus>,
}

/// What a StatefulSet runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatefulSetSpec {
    /// Number of instances; one if not set.
    #[serde(default = "one")]
    pub replicas: u16,
    /// The headless Service that gives the instances their names.
    pub service_name: String,
    /// Must match the template's labels.
    pub selector: LabelSelector,
    /// One instance.
    pub template: PodTemplate,
    /// Lasting storage; one at most.
    #[serde(default)]
    pub volume_claim_templates: Vec<VolumeClaim>,
}

/// v1 Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// `v1`.
    pub api_version: String,
    /// `Service`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What it leads to.
    pub spec: ServiceSpec,
    /// What is known.
    #[serde(default)]
    pub status: Option<PlainStatus>,
}

/// What a Service leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Labels of the instances.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// Ports.
    #[serde(default)]
    pub ports: Vec<ServicePortSpec>,
    /// `None` makes it headless.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<HeadlessOnly>,
    /// Whether instances that are not ready have names, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_not_ready_addresses: Option<bool>,
}

/// The one value of `clusterIP` that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadlessOnly {
    /// Headless.
    None,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePortSpec {
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Port others use.
    pub port: u16,
    /// Port of the instance, by number or name; the same if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<PortReference>,
}

/// A port by number or name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortReference {
    /// Number.
    Number(u16),
    /// Name of a container port.
    Name(String),
}

/// Labels to match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels with their values.
    pub match_labels: BTreeMap<String, String>,
}

/// What is known of a plain object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainStatus {
    /// The generation this was computed from.
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    pub conditions: Vec<Condition>,
    /// Instances that exist.
    pub replicas: u16,
    /// Instances that are ready.
    pub ready_replicas: u16,
    /// Where the instances are reached, `host:port` of their first ports.
    pub addresses: Vec<String>,
}

fn one() -> u16 {
    1
}
