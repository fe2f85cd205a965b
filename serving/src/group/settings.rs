//! The group service's settings.

use std::path::PathBuf;

use clap::Args;
use ofa_crds::GroupName;
use ofa_crds::groups::GroupNameError;
use ofa_crds::kafka::KafkaSettings;

use super::hub::Limits;
use crate::cli::ListenArgs;

const MIB: usize = 1024 * 1024;

/// Which group is served, from where, and within which bounds.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// Kafka, with the group's topic
    #[command(flatten)]
    pub(super) kafka: KafkaSettings,
    /// The group's name, as it stands in the UNS map
    #[arg(long, env = "ASSET_GROUP", value_parser = parse_name)]
    pub(super) group: GroupName,
    /// The group's derived topic; asset_stream_<Group>_topic if not set
    // Not KAFKA_TOPIC: in an installation that sets this for all programs it is the topic of all assets.
    #[arg(long, env = "GROUP_TOPIC")]
    pub(super) topic: Option<String>,
    /// Folder for the assets' state, of this instance alone; without it the state is rebuilt at each start
    #[arg(long, env = "STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// MiB of events kept in memory for clients that resume; older ones are read from Kafka
    #[arg(long, env = "REPLAY_MEMORY_MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) replay_memory_mib: u16,
    /// KiB that may wait for one client before it is disconnected, to resume at its own pace
    #[arg(long, env = "CLIENT_QUEUE_KIB", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) client_queue_kib: u16,
    /// Where to listen
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

impl GroupArgs {
    /// Port that upstream's group services listen on.
    pub(crate) const DEFAULT_PORT: u16 = 5555;

    pub(super) fn topic(&self) -> String {
        self.topic.clone().unwrap_or_else(|| self.group.topic())
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            ring_bytes: usize::from(self.replay_memory_mib) * MIB,
            queue_bytes: usize::from(self.client_queue_kib) * 1024,
        }
    }
}

fn parse_name(text: &str) -> Result<GroupName, GroupNameError> {
    text.parse()
}
