//! The workload that serves one group.

use super::validate::{Engine, ValidGroup};
use crate::controllers::{Settings, kafka_connection};
use crate::engine::Group;
use crate::platform::{
    DataVolume, EnvValue, EnvVar, FileContent, MountedFile, Port, Probes, SecretKey, ServiceName,
    ServicePort, Stop, StopSignal, UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};

/// Port that upstream's group services listen on.
pub const PORT: u16 = 5555;

/// Where an instance keeps the assets' state.
const STATE: &str = "/var/lib/ofa";

/// Where it finds its password on NATS.
const NATS_PASSWORD: &str = "/etc/ofa/nats/password";

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
    let (kafka_env, kafka_files) =
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
        files: kafka_files.into_iter().chain(files(valid)).collect(),
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
    // It asks ksqlDB's server for the state.
    let server = match &valid.engine {
        Engine::Native => None,
        Engine::KsqlDb(server) => Some(&server.url),
    };
    match (server, &serving.nats) {
        (None, None) => valid.identity.chosen(&chosen),
        (Some(url), None) => valid.identity.chosen(&(chosen, url)),
        (url, Some(nats)) => valid.identity.chosen(&(chosen, url, nats)),
    }
}

/// The password on NATS.
fn files(valid: &ValidGroup) -> Option<MountedFile> {
    let content = FileContent::Secret {
        key: nats_secret(valid, "password")?,
        optional: false,
    };
    Some(MountedFile {
        path: NATS_PASSWORD.to_owned(),
        content,
    })
}

fn nats_secret(valid: &ValidGroup, key: &str) -> Option<SecretKey> {
    let secret = valid.serving.nats.as_ref()?.secret_name.clone()?;
    let key = key.to_owned();
    Some(SecretKey { secret, key })
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
    if let Some(nats) = &valid.serving.nats {
        env.push(EnvVar::text("NATS_ROUTER_URL", nats.router_url.as_str()));
    }
    if let Some(user) = nats_secret(valid, "username") {
        env.push(EnvVar::of("NATS_USER", EnvValue::Secret(user)));
        env.push(EnvVar::text("NATS_PASSWORD_FILE", NATS_PASSWORD));
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
