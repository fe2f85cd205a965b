//! What the shell needs to know of each kind.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use ofa_crds::api::{
    AssetGroup, AssetGroupStatus, Condition, ForwarderPool, ForwarderPoolStatus, KafkaConnection,
    NatsShard, NatsShardStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::controllers::{Context, Removal, asset_group, forwarder_pool, nats_shard};
use crate::platform::PlatformError;

/// How often the autoscaler looks at a pool: a few looks for each step that it may take.
const AUTOSCALER_LOOKS_EVERY: Duration = Duration::from_secs(15);

/// One of our kinds, with the reconciler that local processes use too.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What is said about it.
    type Status: Clone + Default + PartialEq + Serialize + Send + Sync;

    /// The status as it was read.
    fn status(&self) -> Option<&Self::Status>;

    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// The conditions of a status, to be changed.
    fn conditions_mut(status: &mut Self::Status) -> &mut Vec<Condition>;

    /// Brings it about.
    fn reconcile(&self, context: &Context<'_>) -> impl Future<Output = Self::Status> + Send;

    /// Removes what was made for it.
    fn finalize(
        &self,
        context: &Context<'_>,
    ) -> impl Future<Output = Result<Removal, PlatformError>> + Send;

    /// Names of the secrets of others that it refers to.
    fn secrets(&self) -> Vec<&str>;

    /// It, where it is a pool: the only kind that has to know how a pool reaches Kafka to be brought about.
    fn as_pool(&self) -> Option<&ForwarderPool> {
        None
    }

    /// When to look again at one that is as it should be, where no watch tells of what it goes by.
    fn look_again(_status: &Self::Status) -> Option<Duration> {
        None
    }

    /// The number of instances that its scale is to be set to.
    fn scale_to(&self, _status: &Self::Status) -> Option<u16> {
        None
    }
}

macro_rules! status_of {
    ($status:ty) => {
        type Status = $status;

        fn status(&self) -> Option<&$status> {
            self.status.as_ref()
        }

        fn conditions(status: &$status) -> &[Condition] {
            &status.conditions
        }

        fn conditions_mut(status: &mut $status) -> &mut Vec<Condition> {
            &mut status.conditions
        }
    };
}

impl Kind for NatsShard {
    status_of!(NatsShardStatus);

    async fn reconcile(&self, context: &Context<'_>) -> NatsShardStatus {
        nats_shard::reconcile(self, context).await
    }

    async fn finalize(&self, context: &Context<'_>) -> Result<Removal, PlatformError> {
        nats_shard::finalize(self, context).await
    }

    fn secrets(&self) -> Vec<&str> {
        let tls = self.spec.tls.iter().map(|tls| tls.secret_name.as_str());
        tls.collect()
    }
}

impl Kind for ForwarderPool {
    fn as_pool(&self) -> Option<&ForwarderPool> {
        Some(self)
    }

    status_of!(ForwarderPoolStatus);

    async fn reconcile(&self, context: &Context<'_>) -> ForwarderPoolStatus {
        forwarder_pool::reconcile(self, context).await
    }

    async fn finalize(&self, context: &Context<'_>) -> Result<Removal, PlatformError> {
        forwarder_pool::finalize(self, context).await
    }

    /// Quiet times end without anything happening.
    fn look_again(status: &ForwarderPoolStatus) -> Option<Duration> {
        let autoscaling = status.autoscaling.as_ref();
        autoscaling.map(|_| AUTOSCALER_LOOKS_EVERY)
    }

    fn scale_to(&self, status: &ForwarderPoolStatus) -> Option<u16> {
        let decided = status.autoscaling.as_ref()?.desired_replicas;
        (self.spec.replicas != Some(decided)).then_some(decided)
    }

    fn secrets(&self) -> Vec<&str> {
        secrets_of_kafka(&self.spec.kafka).collect()
    }
}

impl Kind for AssetGroup {
    status_of!(AssetGroupStatus);

    async fn reconcile(&self, context: &Context<'_>) -> AssetGroupStatus {
        asset_group::reconcile(self, context).await
    }

    async fn finalize(&self, context: &Context<'_>) -> Result<Removal, PlatformError> {
        asset_group::finalize(self, context).await
    }

    fn secrets(&self) -> Vec<&str> {
        let nats = self.spec.serving.nats.iter();
        secrets_of_kafka(&self.spec.kafka)
            .chain(nats.filter_map(|nats| nats.secret_name.as_deref()))
            .collect()
    }
}

fn secrets_of_kafka(kafka: &KafkaConnection) -> impl Iterator<Item = &str> {
    let tls = kafka.tls.iter();
    tls.filter_map(|tls| tls.secret_name.as_deref())
        .chain(kafka.sasl.iter().map(|sasl| sasl.secret_name.as_str()))
}
