//! `AssetGroup`: the derived streams of one level of the Unified Namespace.

#[cfg(feature = "kube")]
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, DeletionPolicy, KafkaConnection, Resources, Spread};
use crate::wire;

/// The derived stream and the service of one group of assets, or of every group of a level.
#[cfg_attr(feature = "kube", derive(CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "fanout.openfactory.io",
        version = "v1alpha1",
        kind = "AssetGroup",
        plural = "assetgroups",
        shortname = "asg",
        category = "openfactory",
        namespaced,
        status = "AssetGroupStatus",
        derive = "PartialEq",
        doc = "A group of assets by a level of the Unified Namespace, with a Kafka topic of its own and a service that streams it.",
        printcolumn = r#"{"name":"Level","type":"string","jsonPath":".spec.grouping.level"}"#,
        printcolumn = r#"{"name":"Value","type":"string","jsonPath":".spec.grouping.value"}"#,
        printcolumn = r#"{"name":"Engine","type":"string","jsonPath":".spec.stream.engine"}"#,
        printcolumn = r#"{"name":"Groups","type":"integer","jsonPath":".status.groupCount"}"#,
        printcolumn = r#"{"name":"Lag","type":"integer","jsonPath":".status.lag"}"#,
        printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
        printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
        validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name may have at most 40 characters, since the names of its objects are made from it"),
        validation = Rule::new("has(self.spec.grouping.value) || !has(self.spec.stream.name) && !has(self.spec.stream.topic)").message("spec.stream.name and topic name one group's stream; set spec.grouping.value with them, or leave them out"),
        validation = Rule::new("has(self.spec.grouping.value) || !has(self.spec.serving) || !has(self.spec.serving.nats)").message("spec.serving.nats is where one group's events are; set spec.grouping.value with it, or leave it out: each instance then reads its group's topic"),
    )
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssetGroupSpec {
    /// Stops all changes to the group while true; what runs goes on running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Kafka topic with the events of all assets.
    #[serde(default = "default_source_topic")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub source_topic: String,
    /// How to reach Kafka.
    #[serde(default)]
    pub kafka: KafkaConnection,
    /// Compacted topic that says to which levels of the Unified Namespace each asset belongs.
    #[serde(default = "default_uns_map_topic")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub uns_map_topic: String,
    /// How to reach ksqlDB, where that is the engine.
    #[serde(default)]
    pub ksqldb: KsqlDbConnection,
    /// Which assets belong together.
    pub grouping: Grouping,
    /// The derived stream.
    #[serde(default)]
    pub stream: DerivedStream,
    /// The service that streams the group to clients.
    #[serde(default)]
    pub serving: Serving,
}

fn default_source_topic() -> String {
    wire::ASSETS_TOPIC.to_owned()
}

fn default_uns_map_topic() -> String {
    crate::groups::UNS_MAP_TOPIC.to_owned()
}

/// How to reach ksqlDB. What is left out comes from the operator's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KsqlDbConnection {
    /// URL of a server, `http://ksqldb:8088` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The stream over the source topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_stream: Option<String>,
    /// The table of assets and their levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uns_map_table: Option<String>,
}

/// Which assets belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grouping {
    /// How the group of an asset is found.
    #[serde(default)]
    pub strategy: GroupingStrategy,
    /// Level of the Unified Namespace, `workcenter` say.
    #[schemars(length(min = 1, max = 255))]
    pub level: String,
    /// The one group meant. Without it: a group for every value that any registered asset has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value: Option<String>,
}

/// How the group of an asset is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupingStrategy {
    /// By the value of a level of the Unified Namespace.
    #[default]
    UNSLevel,
}

/// The derived stream of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DerivedStream {
    /// What makes the stream.
    #[serde(default)]
    pub engine: StreamEngineKind,
    /// Name of the stream; `asset_stream_<Group>` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kafka topic; `asset_stream_<Group>_topic` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Partitions of the topic; the source's if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: Option<u16>,
    /// Milliseconds the topic keeps a record; the broker's default if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub retention_ms: Option<u64>,
    /// What happens to the stream and its topic when the group goes.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What makes derived streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StreamEngineKind {
    /// A ksqlDB server: one persistent query for each group.
    #[serde(rename = "ksqlDB")]
    #[default]
    KsqlDb,
    /// This project's own: one pass over the source for all groups.
    Native,
}

/// The service that streams a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Serving {
    /// Number of instances; one if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<u16>,
    /// Where the group's events are on NATS: several instances then take in what their own clients watch, where each would
    /// read the group's whole topic. One instance reads the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<ServingNats>,
    /// When it runs.
    #[serde(default)]
    pub activation: Activation,
    /// Seconds without a client after which an OnDemand service goes to sleep.
    #[serde(default = "default_idle_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub idle_seconds: u32,
    /// Container image in place of the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// CPU and memory of each instance.
    #[serde(default)]
    pub resources: Resources,
    /// How the instances lie over the hosts.
    #[serde(default)]
    pub spread: Spread,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            replicas: None,
            nats: None,
            activation: Activation::default(),
            idle_seconds: default_idle_seconds(),
            image: None,
            resources: Resources::default(),
            spread: Spread::default(),
        }
    }
}

/// Where a group's events are on NATS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServingNats {
    /// URL of the router of a ForwarderPool that reads the group's topic (`spec.source.topic`, `spec.payload: Verbatim`) onto
    /// shards of its own. The router names a replay service of that topic.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://"))]
    pub router_url: String,
    /// Secret with `username` and `password` on NATS, where the shards let nobody in without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// Long enough that a page reload or a shift's coffee break finds the service awake.
fn default_idle_seconds() -> u32 {
    600
}

/// When a group's service runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Activation {
    /// Always.
    #[default]
    Always,
    /// From a client's request until nobody has asked for the idle time.
    OnDemand,
}

/// What is known about the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssetGroupStatus {
    /// The generation of the spec this was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled and others.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of groups found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_count: Option<u64>,
    /// Records of the source that are not derived yet, over all groups' queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What is about to be done that cannot be undone. It is done when it has stood here for the operator's grace
    /// period; `spec.paused: true` keeps it from being done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planned_actions: Vec<PlannedAction>,
    /// The groups found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupStatus>,
}

/// Something that is about to be done to a derived stream, or that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAction {
    /// The stream.
    pub stream: String,
    /// What.
    pub action: StreamAction,
    /// Why.
    pub message: String,
    /// Since when it stands here (RFC 3339, UTC).
    pub since: String,
}

/// What is done to a derived stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StreamAction {
    /// It is made, or its query goes on. Nothing is lost.
    InPlace,
    /// It is dropped and made again; what the source still holds is written to its topic once more.
    Recreate,
    /// Nothing is done, because somebody else would suffer.
    Refused,
    /// Nothing is done, because the engine has no room.
    AtCapacity,
}

/// One group found at the level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// The level's value.
    pub name: String,
    /// Kafka topic of the group's stream.
    pub topic: String,
    /// Assets in the group.
    pub assets: u64,
    /// Name of the group's service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What the group's service is at.
    #[serde(default)]
    pub state: GroupState,
    /// What is wrong with the group, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a group's service is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupState {
    /// None is asked for.
    #[default]
    None,
    /// It is being started.
    Starting,
    /// It serves.
    Running,
    /// It sleeps until somebody asks for it.
    Asleep,
    /// The group has no assets any more, and what was made for it is being removed.
    Leaving,
}
