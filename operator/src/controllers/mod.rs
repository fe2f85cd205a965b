//! The reconcilers: one folder a kind, one file a step. They know no platform, only the trait.

pub mod asset_group;
pub mod backends;
pub mod conditions;
mod consumer_group;
pub mod control_plane;
pub mod forwarder_pool;
pub mod group_plane;
pub mod kafka_connection;
pub mod nats_shard;
pub mod news;
pub mod partitioning;
pub mod plain;
mod progress;
mod settling;

use std::path::Path;

use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ofa_crds::api::{AssetGroup, NatsShard, PAUSED_ANNOTATION, ROLL_OUT_ANNOTATION};
use ofa_crds::kafka::KafkaSettings;

use crate::digest::digest;
use crate::engine::ksqldb::KsqlServers;
use crate::platform::{DeploymentPlatform, Owner};
pub use backends::{Backends, Neighbours};
use control_plane::ControlPlane;
use group_plane::GroupPlane;

/// What every reconciler works with.
pub struct Context<'a> {
    /// Where workloads run.
    pub platform: &'a dyn DeploymentPlatform,
    /// Kafka, as far as the operator uses it.
    pub control: &'a dyn ControlPlane,
    /// Kafka, as far as groups need it.
    pub groups: &'a dyn GroupPlane,
    /// The ksqlDB servers.
    pub ksqldb: &'a KsqlServers,
    /// Directory for the files with which the operator itself reaches Kafka.
    pub kafka_files: &'a Path,
    /// What the operator was started with.
    pub settings: &'a Settings,
    /// For questions to NATS nodes.
    pub http: &'a reqwest::Client,
    /// Who is to hear of which news.
    pub readers: &'a news::Readers,
    /// All shards, with their status.
    pub shards: &'a [NatsShard],
    /// Whether the number of a pool's forwarders can be set for it, through the scale subresource.
    pub scales: bool,
    /// `<namespace>.<name>` of all pools that exist, and how each reaches Kafka.
    pub pools: &'a [control_plane::PoolRef],
    /// All groups, with their status.
    pub asset_groups: &'a [AssetGroup],
}

/// Settings that hold for all resources.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach Kafka where a resource does not say.
    pub kafka: KafkaSettings,
    /// The control topic.
    pub control_topic: String,
    /// Image of the forwarders where a pool does not say.
    pub forwarder_image: String,
    /// Image of groups' services where a group does not say.
    pub serving_image: String,
    /// ksqlDB where a group does not say.
    pub ksqldb: KsqlDbSettings,
}

/// ksqlDB, and how it is used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ksqlDB")]
pub struct KsqlDbSettings {
    /// URL of the ksqlDB server where an AssetGroup names none
    #[arg(long = "ksqldb-url", env = "KSQLDB_URL")]
    pub url: Option<String>,
    /// Stream of ksqlDB over the source topic
    #[arg(
        long = "ksqldb-assets-stream",
        env = "KSQLDB_ASSETS_STREAM",
        default_value = "assets_stream"
    )]
    pub assets_stream: String,
    /// Table of ksqlDB with assets and their levels
    #[arg(
        long = "ksqldb-uns-map",
        env = "KSQLDB_UNS_MAP",
        default_value = "asset_to_uns_map"
    )]
    pub uns_map: String,
    /// Table of ksqlDB with the latest values of assets
    #[arg(
        long = "ksqldb-assets-table",
        env = "KSQLDB_ASSETS_TABLE",
        default_value = "assets"
    )]
    pub assets_table: String,
    /// Persistent queries that a ksqlDB server may run; each of a group reads the whole source topic
    #[arg(
        long = "ksqldb-max-queries",
        env = "KSQLDB_MAX_QUERIES",
        default_value_t = 20
    )]
    pub max_queries: usize,
    /// Seconds that an action which cannot be undone stands in a resource's status before it is taken
    #[arg(
        long = "stream-grace-seconds",
        env = "STREAM_GRACE_SECONDS",
        default_value_t = 60
    )]
    pub grace_seconds: u32,
}

impl Default for KsqlDbSettings {
    /// As without any flag.
    fn default() -> Self {
        Self {
            url: None,
            assets_stream: "assets_stream".to_owned(),
            uns_map: "asset_to_uns_map".to_owned(),
            assets_table: "assets".to_owned(),
            max_queries: 20,
            grace_seconds: 60,
        }
    }
}

/// Which resource, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Whether a pause annotation stops all changes.
    pub paused: bool,
    /// What the roll-out annotation says: another text takes in what a newer operator has held back.
    pub roll_out: Option<String>,
}

impl Identity {
    /// The identity in an object's metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        let annotations = meta.annotations.as_ref();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation,
            paused: annotations
                .and_then(|all| all.get(PAUSED_ANNOTATION))
                .is_some_and(|v| v == "true"),
            roll_out: annotations
                .and_then(|all| all.get(ROLL_OUT_ANNOTATION))
                .cloned(),
        }
    }

    /// What stands in [`Workload::chosen`](crate::platform::Workload::chosen) when users have chosen `what`.
    #[must_use]
    pub fn chosen(&self, what: &impl serde::Serialize) -> String {
        digest(&(what, &self.roll_out))
    }

    /// The resource as the owner of what is run for it.
    #[must_use]
    pub fn owner(&self, kind: &str) -> Owner {
        Owner {
            kind: kind.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// Whether anything of a deleted resource is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// Nothing.
    Done,
    /// It is going.
    UnderWay,
    /// It stays until somebody has done what this says.
    Refused(String),
}
