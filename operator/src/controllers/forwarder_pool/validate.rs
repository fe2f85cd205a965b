//! From a spec to what can be built.

use std::collections::BTreeMap;

use ofa_crds::api::{
    DEFAULT_FORWARDERS, ForwarderPool, ForwarderSource, GroupProtocol, KafkaConnection,
    PayloadFormat, Resources, Spread,
};
use ofa_crds::names::is_topic_name;
use thiserror::Error;

use crate::controllers::{Identity, Settings};
use crate::platform::WorkloadId;

/// A spec that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Invalid {
    /// The CamelCase reason.
    pub reason: &'static str,
    message: String,
}

/// A pool that can be built.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidPool {
    /// Which resource.
    pub identity: Identity,
    /// What is read.
    pub source: ForwarderSource,
    /// How Kafka is reached.
    pub kafka: KafkaConnection,
    /// Consumer group.
    pub consumer_group: String,
    /// How the group shares partitions out.
    pub group_protocol: GroupProtocol,
    /// Labels of the shards.
    pub shard_labels: BTreeMap<String, String>,
    /// Virtual nodes of each shard.
    pub ring_replicas: u32,
    /// Number of forwarders.
    pub replicas: u16,
    /// What is published.
    pub payload: PayloadFormat,
    /// Where records go that cannot be forwarded.
    pub dead_letter_topic: Option<String>,
    /// Image of the forwarders.
    pub image: String,
    /// The same where the pool names one.
    pub chosen_image: Option<String>,
    /// CPU and memory of each.
    pub resources: Resources,
    /// How they lie over the hosts.
    pub spread: Spread,
}

impl ValidPool {
    /// The workload of the forwarders.
    #[must_use]
    pub fn workload_id(&self) -> WorkloadId {
        WorkloadId::new(
            self.identity.namespace.as_str(),
            self.identity.name.as_str(),
        )
    }
}

/// The pool's name on the control topic.
#[must_use]
pub fn control_name(identity: &Identity) -> String {
    format!("{}.{}", identity.namespace, identity.name)
}

/// Parses a pool's spec.
///
/// # Errors
/// With what to change.
pub fn validate(pool: &ForwarderPool, settings: &Settings) -> Result<ValidPool, Invalid> {
    let identity = Identity::of(&pool.metadata);
    let spec = pool.spec.clone();
    let invalid = |reason, message: String| Err(Invalid { reason, message });
    let autoscaling = spec.autoscaling.as_ref();
    let fewest = autoscaling.map_or(DEFAULT_FORWARDERS, |limits| limits.min_replicas);
    let says_nothing = spec.kafka == KafkaConnection::default();
    if says_nothing && settings.kafka.security_protocol.is_some() {
        return invalid(
            "Invalid",
            "the operator reaches its Kafka with credentials of its own, which it does not hand on; \
             set spec.kafka with the names of the pool's secrets"
                .to_owned(),
        );
    }
    for topic in std::iter::once(&spec.source.topic).chain(&spec.dead_letter_topic) {
        if !is_topic_name(topic) {
            return invalid(
                "Invalid",
                format!(
                    "'{topic}' is no topic name; use 1 to 249 letters, digits, '.', '_' and '-'"
                ),
            );
        }
    }
    if spec.dead_letter_topic.as_ref() == Some(&spec.source.topic) {
        return invalid(
            "Invalid",
            "spec.deadLetterTopic must be another topic than the source, which would feed itself"
                .to_owned(),
        );
    }
    Ok(ValidPool {
        source: spec.source,
        kafka: spec.kafka,
        consumer_group: spec.consumer_group,
        group_protocol: spec.group_protocol,
        shard_labels: spec.shard_selector.match_labels,
        ring_replicas: spec.hash_ring_replicas,
        replicas: spec.replicas.unwrap_or(fewest),
        payload: spec.payload,
        dead_letter_topic: spec.dead_letter_topic,
        chosen_image: spec.image.clone(),
        image: spec
            .image
            .unwrap_or_else(|| settings.forwarder_image.clone()),
        resources: spec.resources,
        spread: spec.spread,
        identity,
    })
}
