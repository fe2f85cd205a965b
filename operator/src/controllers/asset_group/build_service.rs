//! The workload that serves one group.

use super::validate::{Engine, ValidGroup};
use crate::controllers::{Settings, kafka_connection};
use crate::engine::Group;
use crate::platform::{
    DataVolume, EnvValue, EnvVar, Port, Probes, ServiceName, ServicePort, Stop, StopSignal,
    UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};

/// Port that upstream's group services listen on.
pub const PORT: u16 = 5555;

/// Where an instance keeps the assets' state.
const STATE: &str = "/var/lib/ofa";

/// A service ends its streams at once; beyond this it is stuck.
const GRACE_SECONDS: u32 = 15;

/// Somebody may be waiting for it to wake.
const READY_EVERY: u32 = 1;

/// The workload of a group's service.
#[must_use]
pub fn service_id(valid: &ValidGroup, group: &Group) -> WorkloadId {
    WorkloadId::new(valid.identity.namespace.as_str(), group.name.service())
}

/// Builds the workload with `replicas` instances. `client_certificate` says whether Kafka's TLS secret holds one.
#[must_use]
pub fn build(
    valid: &ValidGroup,
    group: &Group,
    replicas: u16,
    settings: &Settings,
    client_certificate: bool,
) -> Workload {
    let (kafka_env, files) =
        kafka_connection::for_instances(&valid.kafka, &settings.kafka, client_certificate);
    let id = service_id(valid, group);
    Workload {
        owner: valid.identity.owner("AssetGroup"),
        chosen: chosen(valid, group, replicas),
        // A restart reads on where the state ends, and not everything again.
        kind: WorkloadKind::Stateful {
            data: Some(DataVolume {
                path: STATE.to_owned(),
                size: None,
            }),
        },
        image: valid.serving.image.clone(),
        command: Vec::new(),
        // In one word, so that a name may begin with a dash; `$(` would be expanded.
        args: vec![
            "group".to_owned(),
            format!("--group={}", group.name.as_str().replace("$(", "$$(")),
        ],
        env: kafka_env
            .into_iter()
            .chain(env(valid, group, settings))
            .collect(),
        files,
        ports: vec![Port::new("http", PORT)],
        probes: Probes::of_program(PORT, (READY_EVERY, "/ready"), "/health"),
        replicas,
        spread: valid.spread.clone(),
        resources: valid.resources.clone(),
        stop: Stop {
            signal: StopSignal::Term,
            grace_seconds: GRACE_SECONDS,
        },
        update: UpdateStrategy::Rolling,
        services: vec![ServiceName {
            name: id.name.clone(),
            headless: false,
            ports: vec![ServicePort {
                name: "http".to_owned(),
                port: PORT,
                target: PORT,
            }],
        }],
        id,
    }
}

/// What users choose of it. The number of instances is among it: one that wakes may be of another version.
fn chosen(valid: &ValidGroup, group: &Group, replicas: u16) -> String {
    let serving = &valid.serving;
    let chosen = (
        (&valid.kafka, &valid.brokers, &group.topic),
        (group.name.as_str(), replicas),
        (
            &serving.chosen_image,
            serving.on_demand,
            serving.idle_seconds,
        ),
        (&valid.resources, &valid.spread),
    );
    match &valid.engine {
        Engine::Native => valid.identity.chosen(&chosen),
        // It asks that server for the state.
        Engine::KsqlDb(server) => valid.identity.chosen(&(chosen, &server.url)),
    }
}

fn env(valid: &ValidGroup, group: &Group, settings: &Settings) -> Vec<EnvVar> {
    let mut env = vec![
        EnvVar::text("GROUP_TOPIC", group.topic.as_str()),
        EnvVar::text("STATE_DIR", STATE),
        EnvVar::text("PORT", PORT.to_string()),
        EnvVar::of("BIND_ADDRESS", EnvValue::BindAddress),
        EnvVar::of("APP_UUID", EnvValue::PodName),
    ];
    if let Engine::KsqlDb(server) = &valid.engine {
        env.push(EnvVar::text("KSQLDB_URL", server.url.as_str()));
        env.push(EnvVar::text(
            "KSQLDB_ASSETS_TABLE",
            settings.ksqldb.assets_table.as_str(),
        ));
    }
    if valid.serving.on_demand {
        let idle = valid.serving.idle_seconds.to_string();
        env.push(EnvVar::text("IDLE_SECONDS", idle));
        env.push(EnvVar::text(
            "SHARD_MAP_TOPIC",
            settings.control_topic.as_str(),
        ));
    }
    env
}
