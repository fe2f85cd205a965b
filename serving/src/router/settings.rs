//! The router's settings.

use clap::Args;
use ofa_crds::control::StreamReader;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::{control, ring, wire};

use super::auth::AuthArgs;
use super::groups::GroupsArgs;
use crate::cli::ListenArgs;
use crate::http::ClientLimits;

/// Where the shard map comes from and where answers are given.
///
/// With variables `NATS_CLUSTER_<NAME>=url,url` the map is made of these clusters, as upstream;
/// otherwise it is followed on the control topic.
#[derive(Debug, Args)]
pub struct RouterArgs {
    /// Kafka, for the control topic
    #[command(flatten)]
    pub(super) kafka: KafkaSettings,
    /// The shard map
    #[command(flatten)]
    pub(super) map: MapArgs,
    /// URL of the replay service (`serving replay`) that clients are told; without it they are told what they missed
    #[arg(long, env = "REPLAY_URL", value_name = "URL")]
    pub(super) replay_url: Option<String>,
    /// Consumer group of the forwarders, whose lag is told
    #[arg(long = "forwarder-group", env = "KAFKA_GROUP", default_value = wire::FORWARDER_GROUP)]
    forwarder_group: String,
    /// Topic that the forwarders read
    #[arg(long = "topic", env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    topic: String,
    /// This router's name in acknowledgements, unique among routers; the host's name by default
    #[arg(long = "member", env = "APP_UUID")]
    pub(super) member: Option<String>,
    /// Groups and their services
    #[command(flatten)]
    pub(super) groups: GroupsArgs,
    /// Who may ask
    #[command(flatten)]
    pub(super) auth: AuthArgs,
    /// Connections that one client, by its address, may have at a time
    #[arg(long, env = "CLIENT_CONNECTIONS", default_value_t = 2000)]
    pub(super) client_connections: u32,
    /// Requests a second that one client, by its address, may send; twice as many may come at once
    #[arg(long, env = "CLIENT_RATE", default_value_t = 1000)]
    pub(super) client_rate: u32,
    /// Where to listen
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

/// Which shard map is followed
#[derive(Debug, Args)]
pub struct MapArgs {
    /// `<namespace>.<name>` of the ForwarderPool whose shard map is followed; the only one by default
    #[arg(long = "pool", env = "FORWARDER_POOL")]
    pub(crate) pool: Option<String>,
    /// The control topic
    #[arg(long, env = "SHARD_MAP_TOPIC", default_value = control::DEFAULT_TOPIC)]
    pub(crate) shard_map_topic: String,
    /// Virtual nodes of each cluster given by NATS_CLUSTER_<NAME>
    #[arg(long, env = "HASH_RING_REPLICAS", default_value_t = ring::DEFAULT_REPLICAS)]
    pub(crate) hash_ring_replicas: u32,
}

impl RouterArgs {
    /// Port of upstream's Asset Router.
    pub(crate) const DEFAULT_PORT: u16 = 8002;

    pub(super) fn forwarders(&self) -> StreamReader {
        StreamReader {
            consumer_group: self.forwarder_group.clone(),
            topic: self.topic.clone(),
        }
    }

    pub(super) fn client_limits(&self) -> ClientLimits {
        ClientLimits {
            connections: Some(self.client_connections),
            rate: Some(self.client_rate),
        }
    }

    /// The name in acknowledgements. A container's host name is its instance's name.
    pub(super) fn member_name(&self) -> String {
        self.member
            .clone()
            .or_else(|| std::env::var("HOSTNAME").ok())
            .unwrap_or_else(|| format!("router-{}", std::process::id()))
    }
}
