//! From a spec to what can be built.

use std::fmt;
use std::str::FromStr;

use ofa_crds::ShardName;
use ofa_crds::api::{NatsAuth, NatsConfig, NatsShard, NatsTls, Resources, Spread};
use thiserror::Error;

use crate::controllers::Identity;
use crate::platform::WorkloadId;

/// The oldest nats-server without published advisories.
pub const OLDEST: Version = Version(2, 12, 7);

/// nats-server refuses a shorter `lame_duck_duration`.
const SHORTEST_LAME_DUCK: u32 = 30;

/// A spec that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A version of nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl FromStr for Version {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let release = text.split('-').next().unwrap_or(text);
        let parts: Vec<&str> = release.split('.').collect();
        let numbers: Result<Vec<u32>, _> = parts.iter().map(|part| part.parse()).collect();
        match numbers.as_deref() {
            Ok(&[major, minor, patch]) => Ok(Self(major, minor, patch)),
            _ => Err(Invalid(format!(
                "'{text}' is no version of nats-server; write it as {OLDEST}"
            ))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A shard that can be built.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidShard {
    /// Which resource.
    pub identity: Identity,
    /// Name on the ring.
    pub ring_name: ShardName,
    /// Number of nodes.
    pub nodes: u16,
    /// Image of the nodes.
    pub image: String,
    /// Settings of nats-server.
    pub config: NatsConfig,
    /// Who may connect.
    pub auth: NatsAuth,
    /// Encryption of client connections.
    pub tls: Option<NatsTls>,
    /// CPU and memory of a node.
    pub resources: Resources,
    /// How the nodes lie over the hosts.
    pub spread: Spread,
    /// URLs for clients outside.
    pub client_urls: Vec<String>,
}

impl ValidShard {
    /// The workload of the nodes.
    #[must_use]
    pub fn workload_id(&self) -> WorkloadId {
        WorkloadId::new(
            self.identity.namespace.as_str(),
            self.identity.name.as_str(),
        )
    }
}

/// Parses a shard's spec.
///
/// # Errors
/// With what to change.
pub fn validate(shard: &NatsShard) -> Result<ValidShard, Invalid> {
    let identity = Identity::of(&shard.metadata);
    let spec = &shard.spec;
    let version: Version = spec.version.parse()?;
    if version < OLDEST {
        return Err(Invalid(format!(
            "nats-server {version} has published security advisories; set spec.version to {OLDEST} or newer"
        )));
    }
    if spec.nodes == 0 {
        return Err(Invalid("spec.nodes must be at least 1".to_owned()));
    }
    if spec.config.lame_duck_seconds < SHORTEST_LAME_DUCK {
        return Err(Invalid(format!(
            "spec.config.lameDuckSeconds must be at least {SHORTEST_LAME_DUCK}, nats-server refuses less"
        )));
    }
    let ring_name = spec.ring_name(&identity.name).parse().map_err(
        |error: ofa_crds::names::ShardNameError| Invalid(format!("spec.clusterName: {error}")),
    )?;
    Ok(ValidShard {
        ring_name,
        nodes: spec.nodes,
        image: spec
            .image
            .clone()
            .unwrap_or_else(|| format!("nats:{}", spec.version)),
        config: spec.config.clone(),
        auth: spec.auth.clone(),
        tls: spec.tls.clone(),
        resources: spec.resources.clone(),
        spread: spec.spread.clone(),
        client_urls: spec.client_urls.clone(),
        identity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("2.9.25") < OLDEST && version("2.12.6") < OLDEST);
        assert!(version("2.12.7") >= OLDEST && version("2.15.2-RC.1") > OLDEST);
        assert!("2.15".parse::<Version>().is_err());
    }

    #[test]
    fn what_cannot_run_is_refused_with_what_to_do() {
        let refusal = |change: fn(&mut NatsShard)| {
            let mut shard = NatsShard::new("a", ofa_crds::api::NatsShardSpec::default());
            shard.spec.version = "2.15.2".to_owned();
            shard.spec.nodes = 2;
            change(&mut shard);
            validate(&shard).map(|_| ()).map_err(|invalid| invalid.0)
        };
        assert_eq!(refusal(|_| {}), Ok(()));
        insta::assert_yaml_snapshot!([
            refusal(|s| s.spec.version = "2.10.1".to_owned()),
            refusal(|s| s.spec.config.lame_duck_seconds = 5),
            refusal(|s| s.spec.cluster_name = Some("a b".to_owned())),
        ]);
    }
}
