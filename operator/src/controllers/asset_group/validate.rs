//! From a spec to what can be built.

use ofa_crds::GroupName;
use ofa_crds::api::{
    Activation, AssetGroup, AssetGroupSpec, DeletionPolicy, KafkaConnection, Resources,
    ServingNats, Spread, StreamEngineKind,
};
use ofa_crds::names::is_topic_name;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::controllers::{Identity, Settings};
use crate::engine::Group;
use crate::engine::ksqldb::Identifier;
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
    /// Topic with the levels of all assets.
    pub map_topic: String,
    /// Level of the Unified Namespace.
    pub level: String,
    /// The one group meant; all of the level without it.
    pub value: Option<GroupName>,
    /// Topic of the one group's stream, where it is not the usual one.
    pub topic: Option<String>,
    /// What makes the streams.
    pub engine: Engine,
    /// What happens to a stream and its topic when its group goes.
    pub deletion: DeletionPolicy,
    /// Partitions of a derived topic.
    pub partitions: Option<u16>,
    /// Milliseconds a derived topic keeps a record.
    pub retention_ms: Option<u64>,
    /// Image of the program that derives.
    pub derive_image: String,
    /// The groups' services.
    pub serving: Serving,
    /// CPU and memory of each instance.
    pub resources: Resources,
    /// How the instances lie over the hosts.
    pub spread: Spread,
}

/// What makes the streams.
#[derive(Debug, Clone, PartialEq)]
pub enum Engine {
    /// A workload of ours.
    Native,
    /// A ksqlDB server.
    KsqlDb(KsqlDb),
}

/// A ksqlDB server and what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct KsqlDb {
    /// Its URL.
    pub url: String,
    /// The stream over the source topic.
    pub source: Identifier,
    /// The table of assets and their levels.
    pub map: Identifier,
    /// Name of the one group's stream, where it is not the usual one.
    pub stream: Option<Identifier>,
}

/// The groups' services.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    /// Image.
    pub image: String,
    /// Image that the resource names.
    pub chosen_image: Option<String>,
    /// Instances of each; none: no services.
    pub replicas: u16,
    /// Where several instances take the events from; from the topic without.
    pub nats: Option<ServingNats>,
    /// Whether they run only while somebody asks for them.
    pub on_demand: bool,
    /// Seconds without a client after which one goes to sleep.
    pub idle_seconds: u32,
}

impl ValidGroup {
    /// A group of this resource.
    #[must_use]
    pub fn group(&self, name: &GroupName, assets: u64) -> Group {
        let topic = self.topic.clone().filter(|_| self.value.is_some());
        Group {
            topic: topic.unwrap_or_else(|| name.topic()),
            name: name.clone(),
            assets,
        }
    }

    /// The workload that derives, called after what it writes and not after the resource: should two resources ever ask
    /// for the same, the platform refuses the second.
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

    fn level_prefix(&self) -> String {
        let of = [&self.brokers, &self.source_topic, &self.level];
        format!("derive-{}", digest(&of.map(String::as_str)))
    }

    /// Whether another one's streams would hold events that this one's hold too.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let of = |group: &Self| {
            let texts = [&group.brokers, &group.source_topic, &group.level];
            texts.map(String::clone)
        };
        let apart = self.value.is_some() && other.value.is_some() && self.value != other.value;
        of(self) == of(other) && !apart
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
    if let Some(nats) = &spec.serving.nats {
        if value.is_none() {
            return invalid(
                "spec.serving.nats is where one group's events are; set spec.grouping.value with it, or leave it out: each \
                 instance then reads its group's topic"
                    .to_owned(),
            );
        }
        let url = &nats.router_url;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return invalid(format!(
                "spec.serving.nats.routerUrl '{url}' is no URL; write http://<host>:8002 of the router of the group's ForwarderPool"
            ));
        }
    }
    if let Some(topic) = &spec.stream.topic
        && !is_topic_name(topic)
    {
        return invalid(format!(
            "spec.stream.topic '{topic}' cannot name a topic; use up to 249 letters, digits, '.', '_' and '-'"
        ));
    }
    if spec.kafka == KafkaConnection::default() && settings.kafka.security_protocol.is_some() {
        return invalid(
            "the operator reaches its Kafka with credentials of its own, which it does not hand on; set spec.kafka \
             with the names of the group's secrets"
                .to_owned(),
        );
    }
    let brokers = spec.kafka.bootstrap_servers.clone();
    let replicas = spec.serving.replicas.unwrap_or(1);
    Ok(ValidGroup {
        identity,
        brokers: brokers.unwrap_or_else(|| settings.kafka.brokers.clone()),
        engine: engine(&spec, settings)?,
        serving: Serving {
            chosen_image: spec.serving.image.clone(),
            image: spec
                .serving
                .image
                .unwrap_or_else(|| settings.serving_image.clone()),
            replicas,
            nats: spec.serving.nats.filter(|_| replicas > 1),
            on_demand: spec.serving.activation == Activation::OnDemand,
            idle_seconds: spec.serving.idle_seconds,
        },
        kafka: spec.kafka,
        source_topic: spec.source_topic,
        map_topic: spec.uns_map_topic,
        level: spec.grouping.level,
        value,
        topic: spec.stream.topic,
        deletion: spec.stream.deletion_policy,
        partitions: spec.stream.partitions,
        retention_ms: spec.stream.retention_ms,
        derive_image: settings.forwarder_image.clone(),
        resources: spec.serving.resources,
        spread: spec.serving.spread,
    })
}

fn engine(spec: &AssetGroupSpec, settings: &Settings) -> Result<Engine, Invalid> {
    let invalid = |message: String| Invalid {
        reason: "Invalid",
        message,
    };
    if spec.stream.engine == StreamEngineKind::Native {
        if spec.stream.name.is_some() {
            return Err(invalid(
                "spec.stream.name names a stream of ksqlDB, which the engine Native does not make; leave it out".to_owned(),
            ));
        }
        return Ok(Engine::Native);
    }
    let identifier = |field: &str, text: &str| {
        Identifier::new(text).map_err(|error| invalid(format!("{field}: {error}")))
    };
    let url = spec.ksqldb.url.as_ref().or(settings.ksqldb.url.as_ref());
    let url = url.ok_or_else(|| {
        invalid(
            "no ksqlDB server is known; set spec.ksqldb.url or the operator's KSQLDB_URL, or spec.stream.engine: Native, which \
             needs none and writes the same topics"
                .to_owned(),
        )
    })?;
    let source = spec.ksqldb.source_stream.as_ref();
    let map = spec.ksqldb.uns_map_table.as_ref();
    let stream = spec.stream.name.as_deref();
    Ok(Engine::KsqlDb(KsqlDb {
        url: url.clone(),
        source: identifier(
            "spec.ksqldb.sourceStream",
            source.unwrap_or(&settings.ksqldb.assets_stream),
        )?,
        map: identifier(
            "spec.ksqldb.unsMapTable",
            map.unwrap_or(&settings.ksqldb.uns_map),
        )?,
        stream: stream
            .map(|name| identifier("spec.stream.name", name))
            .transpose()?,
    }))
}

#[cfg(test)]
mod tests {
    use ofa_crds::kafka::KafkaSettings;

    use super::*;
    use crate::controllers::KsqlDbSettings;

    fn check(spec: &str) -> Result<ValidGroup, Invalid> {
        let settings = Settings {
            kafka: KafkaSettings::plain("kafka:9092"),
            control_topic: "control".to_owned(),
            forwarder_image: "forwarder".to_owned(),
            serving_image: "serving".to_owned(),
            ksqldb: KsqlDbSettings::default(),
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
        for (stream, advice) in [
            ("{}", "set spec.ksqldb.url"),
            (r#"{"engine": "Native", "name": "other"}"#, "leave it out"),
            (
                r#"{"engine": "Native", "topic": "Süd"}"#,
                "cannot name a topic",
            ),
        ] {
            let refused = check(&format!(
                r#"{{"grouping": {{"level": "line", "value": "A"}}, "stream": {stream}}}"#
            ));
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(advice), "{message}");
        }
        let named = r#"{"grouping": {"level": "l", "value": "A"}, "stream": {"name": "a b"}, "ksqldb": {"url": "http://k"}}"#;
        assert!(
            check(named)
                .unwrap_err()
                .to_string()
                .contains("spec.stream.name")
        );
        let usual = r#"{"grouping": {"level": "l", "value": "A"}, "stream": {"engine": "Native", "topic": "mine"}}"#;
        assert_eq!(check(usual).unwrap().topic.as_deref(), Some("mine"));
        assert!(check(r#"{"grouping": {"level": " "}}"#).is_err());
    }

    #[test]
    fn several_instances_share_nats_where_one_reads_the_topic() {
        let group = |grouping: &str, replicas: u16, url: &str| {
            check(&format!(
                r#"{{"grouping": {grouping}, "stream": {{"engine": "Native"}},
                    "serving": {{"replicas": {replicas}, "nats": {{"routerUrl": "{url}"}}}}}}"#
            ))
        };
        let one = r#"{"level": "l", "value": "A"}"#;
        let nats = |replicas| group(one, replicas, "http://r").unwrap().serving.nats;
        assert_eq!(nats(2).unwrap().router_url, "http://r");
        assert_eq!(nats(1), None);
        for (refused, advice) in [
            (
                group(r#"{"level": "l"}"#, 2, "http://r"),
                "spec.grouping.value",
            ),
            (group(one, 2, "r:8002"), "http://"),
        ] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(advice), "{message}");
        }
    }

    #[test]
    fn two_that_would_write_one_topic_twice_are_seen() {
        let all = native(r#"{"level": "line"}"#);
        let one = native(r#"{"level": "line", "value": "A"}"#);
        let other = native(r#"{"level": "line", "value": "B"}"#);
        let elsewhere = native(r#"{"level": "area"}"#);
        assert!(all.overlaps(&one) && one.overlaps(&all) && one.overlaps(&one));
        assert!(!one.overlaps(&other) && !all.overlaps(&elsewhere));
        let by_ksqldb = check(r#"{"grouping": {"level": "line"}, "ksqldb": {"url": "http://k"}}"#);
        assert!(
            all.overlaps(&by_ksqldb.unwrap()),
            "whatever the engines are"
        );
        assert_ne!(one.workload_id(), other.workload_id());
        assert!(one.workload_id().name.len() <= 40);
    }
}
