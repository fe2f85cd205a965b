//! `ForwarderPool`: the forwarders of one consumer group.

use std::collections::BTreeMap;

#[cfg(feature = "kube")]
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, KafkaConnection, Resources, Spread};
use crate::{ring, wire};

/// The forwarders of one consumer group, from a Kafka topic to NATS shards.
#[cfg_attr(feature = "kube", derive(CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "fanout.openfactory.io",
        version = "v1alpha1",
        kind = "ForwarderPool",
        plural = "forwarderpools",
        shortname = "fwp",
        category = "openfactory",
        namespaced,
        status = "ForwarderPoolStatus",
        derive = "PartialEq",
        doc = "Forwarders of one Kafka consumer group: each event goes to the NATS shard that has its asset, and counts as done only when that shard has it.",
        scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
        printcolumn = r#"{"name":"Topic","type":"string","jsonPath":".spec.source.topic"}"#,
        printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".status.replicas"}"#,
        printcolumn = r#"{"name":"Shards","type":"integer","jsonPath":".status.shards"}"#,
        printcolumn = r#"{"name":"Epoch","type":"integer","jsonPath":".status.shardMapEpoch"}"#,
        printcolumn = r#"{"name":"Lag","type":"integer","jsonPath":".status.lag"}"#,
        printcolumn = r#"{"name":"Rate","type":"integer","jsonPath":".status.messagesPerSecond","priority":1}"#,
        printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
        printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
        validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name may have at most 40 characters, since the names of its objects are made from it"),
        validation = Rule::new("!has(self.spec.autoscaling) || self.spec.autoscaling.minReplicas <= self.spec.autoscaling.maxReplicas").message("spec.autoscaling.minReplicas must not exceed maxReplicas"),
        validation = Rule::new("!has(self.spec.deadLetterTopic) || self.spec.deadLetterTopic != self.spec.source.topic").message("spec.deadLetterTopic must be another topic than spec.source.topic, which would feed itself"),
    )
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwarderPoolSpec {
    /// Stops all changes to the pool while true; what runs goes on running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// What is read.
    #[serde(default)]
    pub source: ForwarderSource,
    /// How to reach Kafka.
    #[serde(default)]
    pub kafka: KafkaConnection,
    /// Kafka consumer group; two pools that read one topic need two groups.
    #[serde(default = "default_group")]
    #[schemars(length(min = 1, max = 255))]
    pub consumer_group: String,
    /// How the forwarders share the topic's partitions out: `Classic` among themselves, with any broker; `Consumer` as the
    /// broker tells them (KIP-848), with Kafka 4.0 or newer and its feature `group.version` on. It is then the broker's
    /// `group.consumer.session.timeout.ms` (45000 if not set) after which a dead forwarder's partitions go to another one,
    /// and its `group.consumer.heartbeat.interval.ms` (5000) until forwarders hear of a change: 6000 and 300 are as quick
    /// as `Classic`; the broker's `group.consumer.min.session.timeout.ms` and `group.consumer.min.heartbeat.interval.ms`
    /// have to allow them. A pool that runs goes to `Consumer` with no forwarder in between (`replicas: 0`, no
    /// `autoscaling`, until none is left): Kafka takes no such member into a group that has classic ones, so that new
    /// forwarders would wait, not ready, until the last old one has gone. Back to `Classic` the forwarders are replaced one
    /// by one, where the broker's `group.consumer.migration.policy` is `bidirectional`, as it is if not set.
    #[serde(default)]
    pub group_protocol: GroupProtocol,
    /// The NatsShards of the namespace that the assets are spread over.
    #[serde(default)]
    pub shard_selector: ShardSelector,
    /// Virtual nodes of each shard on the hash ring. A change moves nearly all assets.
    #[serde(default = "default_ring_replicas")]
    #[schemars(range(min = 1, max = 4096))]
    pub hash_ring_replicas: u32,
    /// Number of forwarders; more than the topic has partitions are idle. Two by default. Leave it out
    /// with autoscaling, which sets it through the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<u16>,
    /// Changes the number of forwarders by lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// What is published.
    #[serde(default)]
    pub payload: PayloadFormat,
    /// Kafka topic that gets a copy of every record that cannot be forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_topic: Option<String>,
    /// Container image in place of the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// CPU and memory of each forwarder.
    #[serde(default)]
    pub resources: Resources,
    /// How the forwarders lie over the hosts.
    #[serde(default)]
    pub spread: Spread,
}

/// Two, so that one may go.
pub const DEFAULT_FORWARDERS: u16 = 2;

fn default_group() -> String {
    wire::FORWARDER_GROUP.to_owned()
}

fn default_ring_replicas() -> u32 {
    ring::DEFAULT_REPLICAS
}

/// What a pool reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwarderSource {
    /// Kafka topic.
    #[serde(default = "default_topic")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub topic: String,
    /// Where a group that has no committed position begins.
    #[serde(default)]
    pub start: StartPosition,
}

impl Default for ForwarderSource {
    fn default() -> Self {
        Self {
            topic: default_topic(),
            start: StartPosition::default(),
        }
    }
}

fn default_topic() -> String {
    wire::ASSETS_TOPIC.to_owned()
}

/// Where to begin in a partition without committed position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartPosition {
    /// With the oldest record, so that nothing is passed over, new partitions included.
    #[default]
    Earliest,
    /// With the next record, as upstream does. What is written before the forwarders first see a
    /// partition is not forwarded.
    Latest,
}

/// How a consumer group shares partitions out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupProtocol {
    /// Its members do, by cooperative-sticky assignment (KIP-429).
    #[default]
    Classic,
    /// The broker does (KIP-848).
    Consumer,
}

/// Chooses NatsShards by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardSelector {
    /// Labels a shard must have. Empty: every shard of the namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// Scaling by lag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Autoscaling {
    /// Fewest forwarders.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u16,
    /// Most forwarders; the topic's partition count caps it further.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u16,
    /// Records of lag that one forwarder is left with.
    #[serde(default = "default_target_lag")]
    #[schemars(range(min = 1))]
    pub target_lag: u64,
}

fn default_min_replicas() -> u16 {
    1
}

/// About a second of one forwarder's work on a small machine.
fn default_target_lag() -> u64 {
    100_000
}

/// What is published for an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PayloadFormat {
    /// As OpenFactory's clients expect it: without the id, with the forwarder's timestamps.
    #[default]
    OpenFactory,
    /// The Kafka value, byte by byte, on `<asset>.<id>`.
    Verbatim,
}

/// What is known about the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwarderPoolStatus {
    /// The generation of the spec this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled and others.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Forwarders that exist.
    #[serde(default)]
    pub replicas: u16,
    /// Forwarders that are ready.
    #[serde(default)]
    pub ready_replicas: u16,
    /// Label selector of the forwarders, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Shards in the published map.
    #[serde(default)]
    pub shards: u16,
    /// Epoch of the published shard map.
    #[serde(default)]
    pub shard_map_epoch: u64,
    /// Members that have not acknowledged the epoch yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unacknowledged: Vec<String>,
    /// Partitions of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Members of the consumer group; not told while partitions change hands between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Partitions that members have; not told while Kafka waits for members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_partitions: Option<u32>,
    /// Records behind the end of the topic, over all partitions, by the committed positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Records forwarded in a second, over all partitions, by the committed positions; two digits of it count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<u64>,
    /// What the autoscaler does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Assets that the replay service has found on two partitions of the topic: the order of their events is kept on
    /// each partition only. Let all their producers use one partitioner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixed_partitions: Option<MixedPartitionsStatus>,
}

/// What the autoscaler does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Number of forwarders it has decided on.
    pub desired_replicas: u16,
    /// Why that many.
    pub message: String,
    /// When it last changed the number (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step: Option<String>,
    /// Since when fewer forwarders would do (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_since: Option<String>,
}

/// Assets on two partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MixedPartitionsStatus {
    /// How many were found.
    pub assets: u64,
    /// UUID of the last one.
    pub example: String,
    /// Two partitions that it has events on.
    pub partitions: Vec<u32>,
}
