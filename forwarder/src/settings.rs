//! Settings of `forwarder forward`: flags, or environment variables with upstream's names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::shard_map::ShardMapError;
use ofa_crds::{Shard, ShardMap, control, ring, wire};
use thiserror::Error;

use crate::consume::GroupProtocol;
use crate::route::PayloadFormat;

/// Prefix of the variables that name NATS clusters, upstream's way.
const CLUSTER_PREFIX: &str = "NATS_CLUSTER_";

/// Settings that cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// Neither a pool nor clusters.
    #[error(
        "no shards: set FORWARDER_POOL to follow a pool's shard map, or NATS_CLUSTER_<NAME>=nats://host:port,... for each cluster"
    )]
    NoShards,
    /// A cluster's name.
    #[error("{CLUSTER_PREFIX}{name}: {source}")]
    ClusterName {
        /// The variable's end.
        name: String,
        /// What is wrong with it.
        source: ofa_crds::names::ShardNameError,
    },
    /// The clusters together.
    #[error("the NATS_CLUSTER_ variables make no shard map: {0}")]
    Map(#[from] ShardMapError),
}

/// Reads Kafka and publishes each event on its asset's NATS shard
#[derive(Debug, Args)]
pub struct ForwardArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    /// Topic to read
    #[arg(long, env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    pub(crate) topic: String,
    /// Consumer group; the forwarders of one group share the topic's partitions
    #[arg(long, env = "KAFKA_GROUP", default_value = wire::FORWARDER_GROUP)]
    pub(crate) group: String,
    /// How the group shares its partitions out: by its members (cooperative-sticky), or by the broker (KIP-848, Kafka 4 or newer)
    #[arg(long, env = "KAFKA_GROUP_PROTOCOL", default_value = "classic")]
    pub(crate) group_protocol: GroupProtocol,
    /// Where a partition without committed position begins
    #[arg(long, env = "KAFKA_AUTO_OFFSET_RESET", default_value = "latest", value_parser = ["earliest", "latest"])]
    pub(crate) offset_reset: String,
    /// Pool whose shard map to follow on the control topic: <namespace>.<name>
    #[arg(long, env = "FORWARDER_POOL")]
    pub(crate) pool: Option<String>,
    /// Control topic
    #[arg(long, env = "SHARD_MAP_TOPIC", default_value = control::DEFAULT_TOPIC)]
    pub(crate) control_topic: String,
    /// Virtual nodes per cluster on the hash ring, where clusters are named by NATS_CLUSTER_<NAME>
    #[arg(long, env = "HASH_RING_REPLICAS", default_value_t = ring::DEFAULT_REPLICAS)]
    pub(crate) hash_ring_replicas: u32,
    /// File in JSON with username, password and, for TLS, caCertificate of each cluster by its name; read anew for each connection
    #[arg(long, env = "NATS_CREDENTIALS_FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// What to publish
    #[arg(long, env = "PAYLOAD", default_value = "OpenFactory")]
    pub(crate) payload: PayloadFormat,
    /// Topic that gets a copy of every record that cannot be forwarded; it has to exist
    #[arg(long, env = "DEAD_LETTER_TOPIC")]
    pub(crate) dead_letter_topic: Option<String>,
    /// Name of this forwarder; the host's name if not set
    #[arg(long, env = "APP_UUID")]
    pub(crate) member: Option<String>,
    /// Address to answer /metrics, /live and /ready on
    #[arg(long, env = "BIND_ADDRESS", default_value = "0.0.0.0")]
    pub(crate) bind: std::net::IpAddr,
    /// Port to answer on
    #[arg(long, env = "PORT", default_value_t = 4000)]
    pub(crate) port: u16,
}

impl ForwardArgs {
    /// The map that `NATS_CLUSTER_<NAME>` variables make; `None` when a pool's map is followed.
    pub(crate) fn static_map(
        &self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Option<Arc<ShardMap>>, SettingsError> {
        if self.pool.is_some() {
            return Ok(None);
        }
        let clusters: BTreeMap<String, String> = variables
            .filter_map(|(name, urls)| Some((name.strip_prefix(CLUSTER_PREFIX)?.to_owned(), urls)))
            .collect();
        if clusters.is_empty() {
            return Err(SettingsError::NoShards);
        }
        let shards = clusters
            .into_iter()
            .map(|(name, urls)| shard(&name, &urls))
            .collect::<Result<_, _>>()?;
        Ok(Some(Arc::new(ShardMap::from_ring(
            0,
            shards,
            self.hash_ring_replicas,
        )?)))
    }
}

/// The name of this process among those of its group: the one given, or else the host's.
pub(crate) fn member_name(given: Option<&str>) -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty());
    given
        .map(str::to_owned)
        .or(host)
        .unwrap_or_else(|| format!("forwarder-{}", std::process::id()))
}

fn shard(name: &str, urls: &str) -> Result<Shard, SettingsError> {
    let parsed = name.parse().map_err(|source| SettingsError::ClusterName {
        name: name.to_owned(),
        source,
    })?;
    let urls = urls
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(Shard {
        name: parsed,
        urls,
        advertised_urls: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        forward: ForwardArgs,
    }

    fn args(args: &[&str]) -> ForwardArgs {
        Cli::parse_from([&["forwarder"], args].concat()).forward
    }

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn upstreams_variables_make_the_map() {
        let map = args(&[]).static_map(variables(&[
            ("NATS_CLUSTER_C1", "nats://a:4222, nats://b:4222"),
            ("NATS_CLUSTER_C2", "nats://c:4222"),
            ("PATH", "/bin"),
        ]));
        let map = map.unwrap().unwrap();
        assert_eq!(
            map.shard_of(b"OPCUA-SENSOR-001").urls,
            ["nats://a:4222", "nats://b:4222"]
        );
        assert_eq!(map.shard_of(b"PROVER3018").name.as_str(), "C2");
    }

    #[test]
    fn without_shards_the_message_says_what_to_set() {
        let error = args(&[]).static_map(variables(&[])).unwrap_err();
        assert!(
            error.to_string().contains("FORWARDER_POOL")
                && error.to_string().contains("NATS_CLUSTER_")
        );
        assert!(
            args(&[])
                .static_map(variables(&[("NATS_CLUSTER_C1", " , ")]))
                .is_err()
        );
        assert!(
            args(&["--pool", "a.b"])
                .static_map(variables(&[]))
                .unwrap()
                .is_none()
        );
    }
}
