//! A shard map from upstream's environment variables, for installations without operator.

use ofa_crds::shard_map::ShardMapError;
use ofa_crds::{Shard, ShardMap};
use thiserror::Error;

/// Prefix of the variables; what follows is the cluster's name on the ring, case kept.
const PREFIX: &str = "NATS_CLUSTER_";

/// Why the variables make no map.
#[derive(Debug, Error)]
pub enum StaticMapError {
    /// A variable's name holds no usable cluster name.
    #[error("{variable}: {reason}")]
    Name {
        /// The variable.
        variable: String,
        /// What is wrong.
        reason: String,
    },
    /// The clusters make no map.
    #[error("{0} (clusters come from the variables NATS_CLUSTER_<NAME>=nats://host:port,...)")]
    Map(#[from] ShardMapError),
}

/// The map of the clusters that `NATS_CLUSTER_<NAME>=url,url` name; `None` without such a variable.
///
/// # Errors
/// When a name or a list of URLs cannot be used.
pub fn static_map(
    variables: impl Iterator<Item = (String, String)>,
    replicas: u32,
) -> Result<Option<ShardMap>, StaticMapError> {
    let mut shards = Vec::new();
    for (variable, urls) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let name = name.parse().map_err(|error| StaticMapError::Name {
            reason: format!("{error}"),
            variable: variable.clone(),
        })?;
        shards.push(Shard {
            name,
            urls: split_urls(&urls),
            advertised_urls: Vec::new(),
        });
    }
    if shards.is_empty() {
        return Ok(None);
    }
    shards.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(ShardMap::from_ring(0, shards, replicas)?))
}

fn split_urls(urls: &str) -> Vec<String> {
    let urls = urls.split(',').map(str::trim);
    urls.filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<ShardMap>, StaticMapError> {
        let owned = variables.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        static_map(owned, 128)
    }

    #[test]
    fn clusters_come_from_their_variables() {
        let map = of(&[
            ("PATH", "/bin"),
            ("NATS_CLUSTER_C2", "nats://b:4222"),
            ("NATS_CLUSTER_C1", "nats://a:4222, nats://a:4223,"),
        ]);
        let map = map.unwrap().unwrap();
        assert_eq!(map.shards()[0].urls, ["nats://a:4222", "nats://a:4223"]);
        assert_eq!(map.shard_of(b"PROVER3018").name.as_str(), "C2");
    }

    #[test]
    fn no_variable_is_no_map_and_a_bad_one_an_error() {
        assert!(of(&[("PATH", "/bin")]).unwrap().is_none());
        assert!(of(&[("NATS_CLUSTER_", "nats://a:4222")]).is_err());
        assert!(of(&[("NATS_CLUSTER_C1", " , ")]).is_err());
    }
}
