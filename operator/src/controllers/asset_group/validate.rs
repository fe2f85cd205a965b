//! From a spec to what can be built.

use ofa_crds::GroupName;
use ofa_crds::api::{
    AssetGroup, DeletionPolicy, KafkaConnection, Resources, Spread, StreamEngineKind,
};
use sha2::{Digest, Sha256};
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

/// A group, or all groups of a level, that can be built.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidGroup {
    /// Which resource.
    pub identity: Identity,
    /// How Kafka is reached.
    pub kafka: KafkaConnection,
    /// Address of the brokers, as the instances are told.
    pub brokers: String,
    /// Topic with the events of all assets.
    pub source_topic: String,
    /// Level of the Unified Namespace.
    pub level: String,
    /// The one group meant; all of the level without it.
    pub value: Option<GroupName>,
    /// Partitions of a derived topic.
    pub partitions: Option<u16>,
    /// Milliseconds a derived topic keeps a record.
    pub retention_ms: Option<u64>,
    /// Image of the program that derives.
    pub image: String,
    /// CPU and memory of each instance.
    pub resources: Resources,
    /// How the instances lie over the hosts.
    pub spread: Spread,
}

impl ValidGroup {
    /// The workload that derives, called after what it writes and not after the resource: two resources that would
    /// write the same topic twice ask for one name, and the platform refuses the second.
    #[must_use]
    pub fn workload_id(&self) -> WorkloadId {
        let what = self.value.as_ref().map_or_else(
            || ALL.to_owned(),
            |value| digest(&["value", value.as_str()]),
        );
        WorkloadId::new(
            self.identity.namespace.as_str(),
            format!("{}-{what}", self.level_prefix()),
        )
    }

    /// Workloads whose names begin so derive groups of the same level from the same topic.
    #[must_use]
    pub fn level_prefix(&self) -> String {
        let of = [&self.brokers, &self.source_topic, &self.level];
        format!("derive-{}", digest(&of.map(String::as_str)))
    }

    /// Whether a workload of this name writes topics that this group's would write too.
    #[must_use]
    pub fn overlaps(&self, workload: &WorkloadId) -> bool {
        let Some(other) = workload.name.strip_prefix(&self.level_prefix()) else {
            return false;
        };
        workload.namespace == self.identity.namespace
            && (self.value.is_none() || other.strip_prefix('-') == Some(ALL))
    }
}

/// Stands for every value of a level; no digest has such letters.
const ALL: &str = "all";

/// Ten hexadecimal digits: two of a namespace's few levels and values share them once in a million plants.
fn digest(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        // The length keeps apart what concatenation would not.
        hash.update(text.len().to_be_bytes());
        hash.update(text.as_bytes());
    }
    let digits: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    digits.chars().take(10).collect()
}

/// Parses a group's spec.
///
/// # Errors
/// With what to change.
pub fn validate(group: &AssetGroup, settings: &Settings) -> Result<ValidGroup, Invalid> {
    let identity = Identity::of(&group.metadata);
    let spec = group.spec.clone();
    let invalid = |message: String| {
        Err(Invalid {
            reason: "Invalid",
            message,
        })
    };
    let unsupported = |message: String| {
        Err(Invalid {
            reason: "Unsupported",
            message,
        })
    };
    if spec.grouping.level.trim().is_empty() {
        return invalid(
            "spec.grouping.level must name a level of the Unified Namespace, workcenter for example".to_owned(),
        );
    }
    let value = match spec.grouping.value.as_deref().map(str::parse::<GroupName>) {
        None => None,
        Some(Ok(value)) => Some(value),
        Some(Err(error)) => return invalid(format!("spec.grouping.value: {error}")),
    };
    let named = spec.stream.name.is_some() || spec.stream.topic.is_some();
    if named && value.is_none() {
        return invalid(
            "spec.stream.name and topic name one group's stream; set spec.grouping.value with them, or leave them out".to_owned(),
        );
    }
    if spec.stream.engine == StreamEngineKind::KsqlDb {
        return unsupported(
            "this operator runs no ksqlDB queries; set spec.stream.engine: Native, which needs no ksqlDB and writes \
             the same topics, or create the streams in ksqlDB yourself and remove the AssetGroup"
                .to_owned(),
        );
    }
    let usual = value.as_ref().map(|value| (value.stream(), value.topic()));
    let (stream, topic) = usual.unzip();
    let differs =
        |asked: &Option<String>, usual: &Option<String>| asked.is_some() && asked != usual;
    if differs(&spec.stream.name, &stream) || differs(&spec.stream.topic, &topic) {
        return unsupported(format!(
            "the engine Native names topics by their groups, here {}; leave spec.stream.name and topic out",
            topic.unwrap_or_default()
        ));
    }
    if spec.stream.deletion_policy == DeletionPolicy::Delete {
        return unsupported(
            "the engine Native keeps derived topics; leave spec.stream.deletionPolicy out and delete them with Kafka's \
             own tools when nobody reads them any more"
                .to_owned(),
        );
    }
    if spec.kafka == KafkaConnection::default() && settings.kafka.security_protocol.is_some() {
        return invalid(
            "the operator reaches its Kafka with credentials of its own, which it does not hand on; set spec.kafka \
             with the names of the group's secrets"
                .to_owned(),
        );
    }
    let brokers = spec.kafka.bootstrap_servers.clone();
    Ok(ValidGroup {
        identity,
        brokers: brokers.unwrap_or_else(|| settings.kafka.brokers.clone()),
        kafka: spec.kafka,
        source_topic: spec.source_topic,
        level: spec.grouping.level,
        value,
        partitions: spec.stream.partitions,
        retention_ms: spec.stream.retention_ms,
        image: settings.forwarder_image.clone(),
        resources: spec.serving.resources,
        spread: spec.serving.spread,
    })
}

#[cfg(test)]
mod tests {
    use ofa_crds::kafka::KafkaSettings;

    use super::*;

    fn check(spec: &str) -> Result<ValidGroup, Invalid> {
        let settings = Settings {
            kafka: KafkaSettings::plain("kafka:9092"),
            control_topic: "control".to_owned(),
            forwarder_image: "forwarder".to_owned(),
        };
        let spec = serde_json::from_str(spec).unwrap();
        let mut group = AssetGroup::new("g", spec);
        group.metadata.namespace = Some("n".to_owned());
        validate(&group, &settings)
    }

    fn native(grouping: &str) -> ValidGroup {
        check(&format!(
            r#"{{"grouping": {grouping}, "stream": {{"engine": "Native"}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn what_cannot_run_is_refused_with_what_to_do() {
        let stream = |stream: &str| {
            let refused = check(&format!(
                r#"{{"grouping": {{"level": "line", "value": "A"}}, "stream": {stream}}}"#
            ));
            let refused = refused.unwrap_err();
            (refused.reason, refused.to_string())
        };
        for (spec, advice) in [
            ("{}", "set spec.stream.engine: Native"),
            (
                r#"{"engine": "Native", "topic": "other"}"#,
                "here asset_stream_A_topic; leave spec.stream.name and topic out",
            ),
            (
                r#"{"engine": "Native", "deletionPolicy": "Delete"}"#,
                "leave spec.stream.deletionPolicy out",
            ),
        ] {
            let (reason, message) = stream(spec);
            assert_eq!(reason, "Unsupported");
            assert!(message.contains(advice), "{message}");
        }
        let usual = r#"{"grouping": {"level": "l", "value": "A"}, "stream": {"engine": "Native", "topic": "asset_stream_A_topic"}}"#;
        assert!(check(usual).is_ok());
        assert!(check(r#"{"grouping": {"level": " "}}"#).is_err());
    }

    #[test]
    fn two_that_would_write_one_topic_twice_are_seen() {
        let all = native(r#"{"level": "line"}"#);
        let one = native(r#"{"level": "line", "value": "A"}"#);
        let other = native(r#"{"level": "line", "value": "B"}"#);
        let elsewhere = native(r#"{"level": "area"}"#);
        assert!(all.overlaps(&one.workload_id()) && one.overlaps(&all.workload_id()));
        assert!(!one.overlaps(&other.workload_id()));
        assert!(!all.overlaps(&elsewhere.workload_id()));
        assert_ne!(one.workload_id(), other.workload_id());
        assert!(one.workload_id().name.len() <= 40);
    }
}
