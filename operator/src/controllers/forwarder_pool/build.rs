//! The workload of a pool's forwarders.

use ofa_crds::ShardAccessFile;
use ofa_crds::api::{GroupProtocol, PayloadFormat, StartPosition};

use super::map::Candidate;
use super::validate::{ValidPool, control_name};
use crate::controllers::{Settings, kafka_connection};
use crate::platform::{
    EnvValue, EnvVar, FileContent, MountedFile, Port, Probes, Stop, StopSignal, UpdateStrategy,
    Workload, WorkloadKind,
};

/// Port of metrics and health.
const PORT: u16 = 4000;

/// Where forwarders find the credentials of each shard.
const CREDENTIALS: &str = "/etc/ofa/nats/shards.json";

/// A forwarder drains what is in flight and commits; beyond this it is stuck.
const GRACE_SECONDS: u32 = 30;

/// Builds the workload of the forwarders, who get the credentials of every shard selected: `access` has them.
/// `client_certificate` says whether Kafka's TLS secret holds one.
#[must_use]
pub fn build(
    pool: &ValidPool,
    shards: &[Candidate],
    access: &ShardAccessFile,
    settings: &Settings,
    client_certificate: bool,
) -> Workload {
    let (kafka_env, kafka_files) =
        kafka_connection::for_instances(&pool.kafka, &settings.kafka, client_certificate);
    let credentials = MountedFile {
        path: CREDENTIALS.to_owned(),
        content: FileContent::Live(access.to_string()),
    };
    Workload {
        id: pool.workload_id(),
        owner: pool.identity.owner("ForwarderPool"),
        chosen: chosen(pool, shards, settings),
        kind: WorkloadKind::Stateless { scratch: None },
        image: pool.image.clone(),
        command: Vec::new(),
        args: vec!["forward".to_owned()],
        env: kafka_env.into_iter().chain(env(pool, settings)).collect(),
        files: kafka_files.into_iter().chain([credentials]).collect(),
        ports: vec![Port::new("http", PORT)],
        probes: Probes::of_program(PORT, (2, "/ready"), "/live"),
        replicas: pool.replicas,
        spread: pool.spread.clone(),
        resources: pool.resources.clone(),
        stop: Stop {
            signal: StopSignal::Term,
            grace_seconds: GRACE_SECONDS,
        },
        update: UpdateStrategy::Rolling,
        services: Vec::new(),
    }
}

/// What users choose of a forwarder, those of the chart included. The default image is the operator's.
fn chosen(pool: &ValidPool, shards: &[Candidate], settings: &Settings) -> String {
    let names = shards.iter().filter_map(|candidate| {
        let shard = candidate.shard.as_ref()?;
        Some((
            &candidate.resource,
            shard.name.as_str(),
            &candidate.tls_secret,
        ))
    });
    let choices = (
        (&pool.source, &pool.kafka, &pool.consumer_group),
        (pool.payload, &pool.dead_letter_topic, &pool.chosen_image),
        (&pool.resources, &pool.spread),
        (&settings.kafka.brokers, &settings.control_topic),
        names.collect::<Vec<_>>(),
    );
    match pool.group_protocol {
        // As it was before there was a choice, so that an operator that knows of it replaces no forwarder.
        GroupProtocol::Classic => pool.identity.chosen(&choices),
        GroupProtocol::Consumer => pool.identity.chosen(&(choices, pool.group_protocol)),
    }
}

fn env(pool: &ValidPool, settings: &Settings) -> Vec<EnvVar> {
    let start = match pool.source.start {
        StartPosition::Earliest => "earliest",
        StartPosition::Latest => "latest",
    };
    let group_protocol = match pool.group_protocol {
        GroupProtocol::Classic => "classic",
        GroupProtocol::Consumer => "consumer",
    };
    let payload = match pool.payload {
        PayloadFormat::OpenFactory => "OpenFactory",
        PayloadFormat::Verbatim => "Verbatim",
    };
    let mut env = vec![
        EnvVar::text("KAFKA_TOPIC", pool.source.topic.as_str()),
        EnvVar::text("KAFKA_GROUP", pool.consumer_group.as_str()),
        EnvVar::text("KAFKA_GROUP_PROTOCOL", group_protocol),
        EnvVar::text("KAFKA_AUTO_OFFSET_RESET", start),
        EnvVar::text("FORWARDER_POOL", control_name(&pool.identity)),
        EnvVar::text("SHARD_MAP_TOPIC", settings.control_topic.as_str()),
        EnvVar::text("NATS_CREDENTIALS_FILE", CREDENTIALS),
        EnvVar::text("PAYLOAD", payload),
        EnvVar::text("PORT", PORT.to_string()),
        EnvVar::of("BIND_ADDRESS", EnvValue::BindAddress),
        EnvVar::of("APP_UUID", EnvValue::PodName),
    ];
    if let Some(topic) = &pool.dead_letter_topic {
        env.push(EnvVar::text("DEAD_LETTER_TOPIC", topic.as_str()));
    }
    env
}
