//! What all reconcilers reach out to, whoever feeds them with resources.

use std::path::PathBuf;
use std::sync::Arc;

use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};

use super::control_plane::{ControlPlane, PoolRef};
use super::forwarder_pool::validate::control_name;
use super::group_plane::GroupPlane;
use super::news::Readers;
use super::{Context, Identity, Settings, kafka_connection};
use crate::engine::ksqldb::KsqlServers;
use crate::platform::DeploymentPlatform;

/// Where things run, and who is asked about them.
pub struct Backends {
    /// Where workloads run.
    pub platform: Arc<dyn DeploymentPlatform>,
    /// Kafka.
    pub control: Arc<dyn ControlPlane>,
    /// Kafka, as far as groups need it.
    pub groups: Arc<dyn GroupPlane>,
    /// The ksqlDB servers.
    pub ksqldb: KsqlServers,
    /// What the operator was started with.
    pub settings: Settings,
    /// For questions to NATS nodes.
    pub http: reqwest::Client,
    /// Who is to hear of which news.
    pub readers: Readers,
    /// Directory for the files with which the operator itself reaches Kafka.
    pub kafka_files: PathBuf,
}

/// The resources that one may have to do with.
#[derive(Default)]
pub struct Neighbours {
    /// Shards, with their status.
    pub shards: Vec<NatsShard>,
    /// Pools, and how each reaches Kafka.
    pub pools: Vec<PoolRef>,
    /// Groups, with their status.
    pub asset_groups: Vec<AssetGroup>,
}

impl Backends {
    /// What a reconciler works with. `scales` says whether a pool's number of forwarders can be set for it.
    #[must_use]
    pub fn context<'a>(&'a self, neighbours: &'a Neighbours, scales: bool) -> Context<'a> {
        Context {
            platform: self.platform.as_ref(),
            control: self.control.as_ref(),
            groups: self.groups.as_ref(),
            ksqldb: &self.ksqldb,
            kafka_files: &self.kafka_files,
            settings: &self.settings,
            http: &self.http,
            readers: &self.readers,
            shards: &neighbours.shards,
            scales,
            pools: &neighbours.pools,
            asset_groups: &neighbours.asset_groups,
        }
    }

    /// How each pool reaches Kafka. One whose secrets are missing is left out and says so itself.
    pub async fn pool_refs(&self, pools: impl IntoIterator<Item = &ForwarderPool>) -> Vec<PoolRef> {
        let mut found = Vec::new();
        for pool in pools {
            let identity = Identity::of(&pool.metadata);
            let kafka = kafka_connection::for_operator(
                &pool.spec.kafka,
                &self.settings.kafka,
                &identity.namespace,
                self.platform.as_ref(),
                &self.kafka_files,
            );
            if let Ok(kafka) = kafka.await {
                found.push(PoolRef {
                    name: control_name(&identity),
                    deleted: pool.metadata.deletion_timestamp.is_some(),
                    namespace: identity.namespace,
                    kafka,
                });
            }
        }
        found
    }
}
