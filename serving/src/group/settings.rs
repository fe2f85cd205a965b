//! The group service's settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ofa_crds::groups::GroupNameError;
use ofa_crds::kafka::{ControlError, ControlTopic, KafkaSettings};
use ofa_crds::{GroupName, control};

use super::awake::KeepAwake;
use super::hub::Limits;
use super::nats::NatsArgs;
use crate::cli::ListenArgs;
use crate::state::{KsqlState, KsqlStateError};

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
    /// ksqlDB server whose table of the assets' latest values answers /asset_state, where the group's stream is ksqlDB's; the state kept
    /// here answers without one, and while it cannot
    #[arg(long, env = "KSQLDB_URL", value_name = "URL")]
    pub(super) ksqldb_url: Option<String>,
    /// That table, as OpenFactory's set-up creates it
    #[arg(long, env = "KSQLDB_ASSETS_TABLE", default_value = "assets")]
    pub(super) ksqldb_assets_table: String,
    /// MiB of events kept in memory for clients that resume; older ones are read from Kafka
    #[arg(long, env = "REPLAY_MEMORY_MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) replay_memory_mib: u16,
    /// KiB that may wait for one client before it is disconnected, to resume at its own pace
    #[arg(long, env = "CLIENT_QUEUE_KIB", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) client_queue_kib: u16,
    /// Seconds without a client after which the operator may put this service to sleep; it is then told of clients on the control topic
    #[arg(long, env = "IDLE_SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) idle_seconds: Option<u32>,
    /// The control topic
    #[arg(long, env = "SHARD_MAP_TOPIC", default_value = control::DEFAULT_TOPIC)]
    pub(super) control_topic: String,
    /// This instance's name, its own among those of the group; the host's name if not set
    #[arg(long = "member", env = "APP_UUID")]
    pub(super) member: Option<String>,
    /// NATS
    #[command(flatten)]
    pub(super) nats: NatsArgs,
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

    pub(super) fn keep_awake(&self) -> Result<Option<KeepAwake>, ControlError> {
        let Some(idle) = self.idle_seconds else {
            return Ok(None);
        };
        Ok(Some(KeepAwake {
            control: ControlTopic::new(&self.kafka, &self.control_topic)?,
            topic: self.topic(),
            member: self.member_name(),
            idle: Duration::from_secs(idle.into()),
        }))
    }

    pub(super) fn member_name(&self) -> String {
        let host = || std::env::var("HOSTNAME").ok();
        let member = self.member.clone().or_else(host);
        member.unwrap_or_else(|| format!("group-{}", std::process::id()))
    }

    pub(super) fn ksql_state(&self) -> Result<Option<KsqlState>, KsqlStateError> {
        let url = self.ksqldb_url.as_deref().filter(|url| !url.is_empty());
        url.map(|url| KsqlState::new(url, &self.ksqldb_assets_table))
            .transpose()
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
