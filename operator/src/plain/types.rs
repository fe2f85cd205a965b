//! The subset, as strict as it can be: a field that is not here is refused by name.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ofa_crds::api::{Condition, Resources};
use serde::{Deserialize, Serialize};

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

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodTemplate {
    /// Labels.
    #[serde(default)]
    pub metadata: TemplateMeta,
    /// Containers.
    pub spec: PodSpec,
}

/// Labels and annotations of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateMeta {
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    /// Exactly one.
    pub containers: Vec<Container>,
    /// Seconds from SIGTERM to SIGKILL.
    #[serde(default = "thirty")]
    pub termination_grace_period_seconds: u32,
    /// Only `false` can be kept everywhere: variables that nobody wrote are no settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_service_links: Option<bool>,
    /// Volumes; `emptyDir` only.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// The container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// How the image gets there; means nothing to processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Program in place of the image's.
    #[serde(default)]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: Vec<Env>,
    /// Ports.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    /// CPU and memory.
    #[serde(default)]
    pub resources: Resources,
    /// Until it succeeds the others are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<ProbeSpec>,
    /// Whether it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<ProbeSpec>,
    /// Whether it must be restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<ProbeSpec>,
    /// One at most.
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Env {
    /// Name.
    pub name: String,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Another source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvSource {
    /// A field of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A value of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A field of the pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    /// Which.
    pub field_path: FieldPath,
}

/// The fields of a pod that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldPath {
    /// Its address.
    #[serde(rename = "status.podIP")]
    PodIp,
    /// Its name.
    #[serde(rename = "metadata.name")]
    PodName,
}

/// A value of a Secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key.
    pub key: String,
}

/// A port of the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerPort {
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Port number.
    pub container_port: u16,
    /// Port of the host that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
}

/// A probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeSpec {
    /// `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// A connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// A command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAction>,
    /// Seconds before the first.
    #[serde(default)]
    pub initial_delay_seconds: u32,
    /// Seconds between.
    #[serde(default = "ten")]
    pub period_seconds: u32,
    /// Seconds to wait for an answer.
    #[serde(default = "one_second")]
    pub timeout_seconds: u32,
    /// Failures in a row.
    #[serde(default = "three")]
    pub failure_threshold: u32,
}

/// `GET`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Path.
    #[serde(default = "slash")]
    pub path: String,
    /// Port.
    pub port: PortReference,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSocket {
    /// Port.
    pub port: PortReference,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecAction {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Where a volume is seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    /// Name of the volume.
    pub name: String,
    /// Path.
    pub mount_path: String,
}

/// A passing volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// `{}`.
    pub empty_dir: EmptyDir,
}

/// `{}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmptyDir {}

/// A lasting volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeClaim {
    /// Name.
    pub metadata: ClaimMeta,
    /// What is asked for.
    pub spec: ClaimSpec,
}

/// Name of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimMeta {
    /// Name.
    pub name: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimSpec {
    /// `ReadWriteOnce`.
    pub access_modes: Vec<AccessMode>,
    /// Size.
    pub resources: ClaimResources,
}

/// Who may use a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessMode {
    /// The instances of one host.
    ReadWriteOnce,
}

/// Size of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimResources {
    /// `storage`.
    pub requests: BTreeMap<String, String>,
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

fn one_second() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn ten() -> u32 {
    10
}

fn thirty() -> u32 {
    30
}

fn slash() -> String {
    "/".to_owned()
}
