//! Who is asked about the cluster, and what is said of its brokers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use ofa_crds::kafka::KafkaSettings;

/// Versions of the Metadata request that are spoken: topics by name, none of which is to be created.
pub(crate) const METADATA_VERSIONS: RangeInclusive<i16> = 4..=9;

/// Asks about topics and the brokers.
pub(crate) fn metadata_request(topics: impl IntoIterator<Item = TopicName>) -> MetadataRequest {
    let topic = |name| MetadataRequestTopic::default().with_name(Some(name));
    MetadataRequest::default()
        .with_topics(Some(topics.into_iter().map(topic).collect()))
        .with_allow_auto_topic_creation(false)
}

/// `host:port` of each broker that an answer tells of.
pub(crate) fn brokers_of(answer: &MetadataResponse) -> BTreeMap<i32, String> {
    let brokers = answer.brokers.iter();
    brokers
        .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port)))
        .collect()
}

/// Addresses to ask: the brokers that are known, then those of the settings.
pub(crate) fn addresses(known: &BTreeMap<i32, String>, settings: &KafkaSettings) -> Vec<String> {
    let first = settings.brokers.split(',').map(|it| it.trim().to_owned());
    known.values().cloned().chain(first).collect()
}
