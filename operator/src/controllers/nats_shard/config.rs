//! Which configuration the nodes are to run: the one asked for, or the one before where a node has refused it.

use ofa_crds::api::{AcceptedConfig, NatsShardStatus, RefusedConfig};

use super::conf::Conf;
use super::credentials::Credentials;
use super::validate::ValidShard;

/// The shard as its nodes are to run now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InForce {
    /// The shard, its settings those in force.
    pub(super) shard: ValidShard,
    /// Its configuration.
    pub(super) conf: Conf,
    /// Why it is not the one asked for.
    pub(super) refused: Option<RefusedConfig>,
    /// The one asked for.
    pub(super) wanted: String,
    /// The one before, where users have chosen other settings since.
    pub(super) before: Option<AcceptedConfig>,
    /// Whether all nodes have run the settings that users have chosen: what differs yet is the operator's.
    pub(super) unchanged: bool,
}

impl InForce {
    /// What to run by what was asked for and what became of it.
    pub(super) fn of(
        shard: &ValidShard,
        hosts: &[String],
        credentials: &Credentials,
        status: Option<&NatsShardStatus>,
    ) -> Self {
        let wanted = Conf::of(shard, hosts, credentials);
        let accepted = status.and_then(|status| status.accepted_config.clone());
        let is_same = |it: &AcceptedConfig| {
            let asked = (&shard.config, &shard.auth, &shard.identity.roll_out);
            (&it.config, &it.auth, &it.roll_out) == asked
        };
        let unchanged = accepted.as_ref().is_some_and(is_same);
        let before = accepted.filter(|_| !unchanged);
        let refused = status
            .and_then(|status| status.refused_config.clone())
            .filter(|refused| refused.digest == wanted.digest);
        let digest = wanted.digest.clone();
        match (&before, refused) {
            (Some(before), Some(refused)) => {
                let shard = ValidShard {
                    config: before.config.clone(),
                    auth: before.auth.clone(),
                    ..shard.clone()
                };
                Self {
                    conf: Conf::of(&shard, hosts, credentials),
                    shard,
                    refused: Some(refused),
                    wanted: digest,
                    before: None,
                    unchanged: false,
                }
            }
            (_, _) => Self {
                shard: shard.clone(),
                conf: wanted,
                refused: None,
                wanted: digest,
                before,
                unchanged,
            },
        }
    }

    /// The shard as asked for, where that is what is in force.
    pub(super) fn asked(&self) -> &ValidShard {
        &self.shard
    }

    /// What all nodes have taken over.
    pub(super) fn accepted(&self) -> AcceptedConfig {
        AcceptedConfig {
            digest: self.conf.digest.clone(),
            config: self.shard.config.clone(),
            auth: self.shard.auth.clone(),
            roll_out: self.shard.identity.roll_out.clone(),
        }
    }

    /// What is noted when a node refuses what is asked for.
    pub(super) fn refusal(&self, node: &str, message: &str) -> RefusedConfig {
        RefusedConfig {
            digest: self.wanted.clone(),
            node: node.to_owned(),
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ofa_crds::api::{NatsShard, NatsShardSpec};

    use super::super::validate::validate;
    use super::*;

    fn shard(max_payload: u32) -> ValidShard {
        let mut shard = NatsShard::new("a", NatsShardSpec::default());
        (shard.spec.nodes, shard.spec.version) = (2, "2.15.2".to_owned());
        shard.spec.config.max_payload = max_payload;
        validate(&shard).unwrap()
    }

    fn in_force(shard: &ValidShard, status: &NatsShardStatus) -> InForce {
        let word = || "x".to_owned();
        let credentials = Credentials {
            forwarder: word(),
            client: word(),
            route: word(),
            operator: word(),
        };
        InForce::of(shard, &[word()], &credentials, Some(status))
    }

    #[test]
    fn what_a_node_refuses_gives_way_to_what_was_before_until_something_else_is_asked_for() {
        let (old, new) = (shard(1000), shard(2000));
        let first = in_force(&old, &NatsShardStatus::default());
        assert_eq!((&first.before, &first.refused), (&None, &None));
        let mut status = NatsShardStatus {
            accepted_config: Some(first.accepted()),
            ..NatsShardStatus::default()
        };
        let tried = in_force(&new, &status);
        assert_ne!(tried.conf.digest, first.conf.digest);
        assert!(tried.before.is_some());
        status.refused_config = Some(tried.refusal("a-1", "no"));
        let back = in_force(&new, &status);
        assert_eq!((&back.conf, &back.shard), (&first.conf, &old));
        assert_eq!(back.refused.map(|refused| refused.node), Some("a-1".into()));
        let other = in_force(&shard(3000), &status);
        assert_eq!(
            (other.refused, other.conf.text.contains("3000")),
            (None, true)
        );
    }

    #[test]
    fn without_a_configuration_before_there_is_nothing_to_go_back_to() {
        let asked = shard(1000);
        let tried = in_force(&asked, &NatsShardStatus::default());
        let status = NatsShardStatus {
            refused_config: Some(tried.refusal("a-1", "no")),
            ..NatsShardStatus::default()
        };
        assert_eq!(in_force(&asked, &status).conf, tried.conf);
    }
}
