//! The workload that derives groups' streams.

use super::validate::ValidGroup;
use crate::controllers::{Settings, kafka_connection};
use crate::platform::{
    EnvValue, EnvVar, Port, Probes, Stop, StopSignal, UpdateStrategy, Workload, WorkloadKind,
};

/// Port of metrics and health.
const PORT: u16 = 4000;

/// Two, so that one may go: they share the source's partitions.
const INSTANCES: u16 = 2;

/// An instance commits what it has written and gives its partitions back; beyond this it is stuck.
const GRACE_SECONDS: u32 = 30;

/// Builds the workload. `client_certificate` says whether Kafka's TLS secret holds one.
#[must_use]
pub fn build(group: &ValidGroup, settings: &Settings, client_certificate: bool) -> Workload {
    let (kafka_env, files) =
        kafka_connection::for_instances(&group.kafka, &settings.kafka, client_certificate);
    let value = group.value.iter();
    let args = std::iter::once("derive".to_owned())
        // In one word, so that a value may begin with a dash; `$(` would be expanded.
        .chain(value.map(|value| format!("--value={}", value.as_str().replace("$(", "$$("))));
    Workload {
        id: group.workload_id(),
        owner: group.identity.owner("AssetGroup"),
        chosen: chosen(group),
        // Transactions are fenced by the member's name, which must be the same after a restart.
        kind: WorkloadKind::Stateful { data: None },
        image: group.derive_image.clone(),
        command: Vec::new(),
        args: args.collect(),
        env: kafka_env.into_iter().chain(env(group)).collect(),
        files,
        ports: vec![Port::new("http", PORT)],
        probes: Probes::of_program(PORT, (2, "/ready"), "/live"),
        replicas: INSTANCES,
        spread: group.spread.clone(),
        resources: group.resources.clone(),
        stop: Stop {
            signal: StopSignal::Term,
            grace_seconds: GRACE_SECONDS,
        },
        update: UpdateStrategy::Rolling,
        services: Vec::new(),
    }
}

/// What users choose of it; the image is the operator's.
fn chosen(group: &ValidGroup) -> String {
    let value = group.value.as_ref().map(|value| value.as_str());
    group.identity.chosen(&(
        (&group.kafka, &group.brokers, &group.source_topic),
        (&group.map_topic, &group.level, value, &group.topic),
        (group.partitions, group.retention_ms),
        (&group.resources, &group.spread),
    ))
}

/// The consumer group of those who derive.
#[must_use]
pub fn consumer_group(group: &ValidGroup) -> String {
    let id = group.workload_id();
    format!("ofa_{}_{}", id.namespace, id.name)
}

fn env(group: &ValidGroup) -> Vec<EnvVar> {
    let mut env = vec![
        EnvVar::text("KAFKA_TOPIC", group.source_topic.as_str()),
        EnvVar::text("KAFKA_GROUP", consumer_group(group)),
        // A group gets the events from its first on; with `latest`, those before the first start were missing.
        EnvVar::text("KAFKA_AUTO_OFFSET_RESET", "earliest"),
        EnvVar::text("UNS_MAP_TOPIC", group.map_topic.as_str()),
        EnvVar::text("GROUPING_LEVEL", group.level.replace("$(", "$$(")),
        EnvVar::text("PORT", PORT.to_string()),
        EnvVar::of("BIND_ADDRESS", EnvValue::BindAddress),
        EnvVar::of("APP_UUID", EnvValue::PodName),
    ];
    if let Some(topic) = &group.topic {
        env.push(EnvVar::text("DERIVED_TOPIC", topic.as_str()));
    }
    if let Some(partitions) = group.partitions {
        env.push(EnvVar::text("DERIVED_PARTITIONS", partitions.to_string()));
    }
    if let Some(retention) = group.retention_ms {
        env.push(EnvVar::text("DERIVED_RETENTION_MS", retention.to_string()));
    }
    env
}
