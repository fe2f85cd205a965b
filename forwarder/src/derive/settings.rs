//! Settings of `forwarder derive`.

use std::net::IpAddr;

use clap::Args;
use ofa_crds::groups::{GroupNameError, UNS_MAP_TOPIC};
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::{GroupName, UnsLevel, wire};

use super::output::Format;

/// Writes each group's events to a Kafka topic of its own
#[derive(Debug, Args)]
pub struct DeriveArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    /// Topic to read
    #[arg(long, env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    pub(crate) topic: String,
    /// Consumer group; the members of one group share the topic's partitions
    #[arg(long, env = "KAFKA_GROUP", default_value = "ofa_derive_group")]
    pub(crate) group: String,
    /// Where a partition without committed position begins
    #[arg(long, env = "KAFKA_AUTO_OFFSET_RESET", default_value = "latest", value_parser = ["earliest", "latest"])]
    pub(crate) offset_reset: String,
    /// Compacted topic that says to which levels of the Unified Namespace each asset belongs
    #[arg(long, env = "UNS_MAP_TOPIC", default_value = UNS_MAP_TOPIC)]
    pub(crate) map_topic: String,
    /// Level of the Unified Namespace whose values are the groups
    #[arg(long, env = "GROUPING_LEVEL", default_value = "workcenter")]
    pub(crate) level: String,
    /// A value of the level that is to be a group; may be repeated. All values if not set
    #[arg(long = "value", value_name = "VALUE", value_parser = parse_value)]
    pub(crate) values: Vec<GroupName>,
    /// Topic of the group named by the one --value; asset_stream_<Group>_topic if not set
    #[arg(long, env = "DERIVED_TOPIC", requires = "values")]
    pub(crate) derived_topic: Option<String>,
    /// How to write an event's value
    #[arg(long, env = "DERIVED_FORMAT", default_value = "clean")]
    pub(crate) format: Format,
    /// Milliseconds that a derived topic keeps a record, where this program creates it; the broker's default if not set
    #[arg(long, env = "DERIVED_RETENTION_MS")]
    pub(crate) retention_ms: Option<u64>,
    /// Partitions of a derived topic, where this program creates it; the source's if not set
    #[arg(long, env = "DERIVED_PARTITIONS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) partitions: Option<u16>,
    /// Milliseconds after which written events are shown to readers; what is written between two commits becomes visible at once
    #[arg(long, env = "COMMIT_INTERVAL_MS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) commit_interval_ms: u64,
    /// Milliseconds that a transaction may take; a member that is gone for good holds readers back for as long. Slow brokers need long
    /// for the thousands of partitions of hundreds of groups. At most the brokers' transaction.max.timeout.ms
    #[arg(long, env = "TRANSACTION_TIMEOUT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(20_000..=900_000))]
    pub(crate) transaction_timeout_ms: u64,
    /// Name of this member, its own among those of the group and the same after a restart; the host's name if not set
    #[arg(long, env = "APP_UUID")]
    pub(crate) member: Option<String>,
    /// Address to answer /metrics, /live and /ready on
    #[arg(long, env = "BIND_ADDRESS", default_value = "0.0.0.0")]
    pub(crate) bind: IpAddr,
    /// Port to answer on
    #[arg(long, env = "PORT", default_value_t = 4000)]
    pub(crate) port: u16,
}

impl DeriveArgs {
    /// The groups wanted.
    pub(crate) fn strategy(&self) -> UnsLevel {
        UnsLevel::only(&self.level, self.values.clone())
    }
}

fn parse_value(text: &str) -> Result<GroupName, GroupNameError> {
    text.parse()
}
