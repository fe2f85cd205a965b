//! The replay service's settings.

use clap::Args;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::payload::PayloadFormat;
use ofa_crds::wire;

use crate::cli::ListenArgs;
use crate::router::MapArgs;

const MIB: usize = 1024 * 1024;

/// What is sent again, and within which bounds.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Kafka, with the events and the control topic
    #[command(flatten)]
    pub(super) kafka: KafkaSettings,
    /// The topic that the forwarders read
    #[arg(long = "topic", env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    pub(super) topic: String,
    /// The payload that the forwarders publish
    #[arg(long, env = "PAYLOAD", default_value = "OpenFactory")]
    pub(super) payload: PayloadFormat,
    /// MiB of events kept in memory, shared evenly by the partitions; older ones are read from Kafka
    #[arg(long, env = "REPLAY_MEMORY_MIB", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    replay_memory_mib: u16,
    /// The shard map, for clients that watch a whole shard
    #[command(flatten)]
    pub(super) map: MapArgs,
    /// Where to listen
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

impl ReplayArgs {
    /// The port after the router's.
    pub(crate) const DEFAULT_PORT: u16 = 8003;

    /// Bytes of events in memory.
    pub(super) fn memory(&self) -> usize {
        usize::from(self.replay_memory_mib) * MIB
    }
}
