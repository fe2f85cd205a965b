//! `NatsShard`: one NATS cluster that serves a share of the assets.

#[cfg(feature = "kube")]
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Resources, Spread};

/// One NATS cluster that serves a share of the assets.
#[cfg_attr(feature = "kube", derive(CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "fanout.openfactory.io",
        version = "v1alpha1",
        kind = "NatsShard",
        plural = "natsshards",
        shortname = "nsh",
        category = "openfactory",
        namespaced,
        status = "NatsShardStatus",
        derive = "PartialEq",
        doc = "A NATS cluster that serves a share of the assets. Assets are spread over all shards of a ForwarderPool by a stable hash.",
        printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".status.clusterName"}"#,
        printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".spec.nodes"}"#,
        printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
        printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
        printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.version","priority":1}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
        validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name may have at most 40 characters, since the names of its nodes and objects are made from it; choose a shorter name (spec.clusterName sets the name on the hash ring)"),
        validation = Rule::new("has(self.spec.clusterName) == has(oldSelf.spec.clusterName) && (!has(self.spec.clusterName) || self.spec.clusterName == oldSelf.spec.clusterName)").message("spec.clusterName decides which assets the shard has and cannot change; create a shard of the new name and delete this one"),
        validation = Rule::new("int(self.spec.version.split('.')[0]) * 1000000 + int(self.spec.version.split('.')[1]) * 1000 + int(self.spec.version.split('.')[2]) >= 2012007").message("nats-server before 2.12.7 has published security advisories; set spec.version to 2.12.7 or newer"),
    )
)]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsShardSpec {
    /// Stops all changes to the shard while true; what runs goes on running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Name on the hash ring and in the router's answers; metadata.name if not set. Set it to take over
    /// a cluster of an existing OpenFactory installation, `C1` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    )]
    pub cluster_name: Option<String>,
    /// Number of NATS nodes. With two or more a second node witnesses every event before it counts as delivered.
    #[serde(default = "default_nodes")]
    #[schemars(range(min = 1, max = 9))]
    pub nodes: u16,
    /// Version of nats-server, 2.12.7 or newer (earlier ones have published advisories).
    #[serde(default = "default_version")]
    #[schemars(
        length(max = 20),
        regex(pattern = r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$")
    )]
    pub version: String,
    /// Container image in place of the default one of `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Settings of nats-server.
    #[serde(default)]
    pub config: NatsConfig,
    /// URLs that clients outside the platform are told in place of the nodes' own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub client_urls: Vec<String>,
    /// Who may connect.
    #[serde(default)]
    pub auth: NatsAuth,
    /// Encrypts client connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<NatsTls>,
    /// CPU and memory of each node.
    #[serde(default)]
    pub resources: Resources,
    /// How the nodes lie over the hosts.
    #[serde(default)]
    pub spread: Spread,
}

impl NatsShardSpec {
    /// The name on the hash ring of a shard called `metadata_name`.
    #[must_use]
    pub fn ring_name<'a>(&'a self, metadata_name: &'a str) -> &'a str {
        self.cluster_name.as_deref().unwrap_or(metadata_name)
    }
}

/// Three nodes: one may be down and another still witnesses.
fn default_nodes() -> u16 {
    3
}

/// The version that the project's tests run against.
fn default_version() -> String {
    "2.15.2".to_owned()
}

/// Settings of nats-server; the names are its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsConfig {
    /// Largest message in bytes (`max_payload`).
    #[serde(default = "default_max_payload")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_payload: u32,
    /// Bytes kept for a slow client before it is disconnected (`max_pending`).
    #[serde(default = "default_max_pending")]
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub max_pending: u32,
    /// Most client connections of one node (`max_connections`).
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Seconds over which a stopping node sends its clients away (`lame_duck_duration`);
    /// nats-server refuses less than 30.
    #[serde(default = "default_lame_duck_seconds")]
    #[schemars(range(min = 30, max = 3600))]
    pub lame_duck_seconds: u32,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            max_payload: default_max_payload(),
            max_pending: default_max_pending(),
            max_connections: default_max_connections(),
            lame_duck_seconds: default_lame_duck_seconds(),
        }
    }
}

/// Kafka's default for the largest record is 1 MiB; the payload grows by our timestamps, hence twice that.
fn default_max_payload() -> u32 {
    2 * 1024 * 1024
}

/// nats-server's default of 64 MiB lets a slow client hold back publishers for long; a client
/// that is 16 MiB behind resumes by its cursor instead.
fn default_max_pending() -> u32 {
    16 * 1024 * 1024
}

/// nats-server's own default.
fn default_max_connections() -> u32 {
    65_536
}

/// Long enough for clients to move one after the other, well under Kubernetes' grace period below.
fn default_lame_duck_seconds() -> u32 {
    30
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsAuth {
    /// Clients that name no user may subscribe, as OpenFactory's own clients do. Forwarders always
    /// authenticate with generated credentials, and nobody else may publish.
    #[serde(default = "yes")]
    pub anonymous_clients: bool,
}

impl Default for NatsAuth {
    fn default() -> Self {
        Self {
            anonymous_clients: true,
        }
    }
}

fn yes() -> bool {
    true
}

/// TLS of client connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsTls {
    /// Secret in the resource's namespace with `tls.crt`, `tls.key` and `ca.crt`.
    pub secret_name: String,
}

/// What is known about the shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NatsShardStatus {
    /// The generation of the spec this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled and others.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Name on the hash ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Nodes that are ready.
    #[serde(default)]
    pub ready_nodes: u16,
    /// Client URLs of the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The configuration that all nodes have taken over last: what a refused change falls back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_config: Option<AcceptedConfig>,
    /// The configuration that a node has refused; it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_config: Option<RefusedConfig>,
    /// Since when a change has been waiting for clients to settle (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients_moving_since: Option<String>,
}

/// A configuration that all nodes run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedConfig {
    /// Tells this configuration from any other; a node shows it as its tag `config:<digest>`.
    pub digest: String,
    /// `spec.config` as it was then.
    pub config: NatsConfig,
    /// `spec.auth` as it was then.
    pub auth: NatsAuth,
    /// The roll-out annotation as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_out: Option<String>,
}

/// A configuration that a node has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedConfig {
    /// Tells this configuration from any other.
    pub digest: String,
    /// The node.
    pub node: String,
    /// What the node has said.
    pub message: String,
}
