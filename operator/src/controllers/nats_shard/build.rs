//! The workload of a shard's nodes.

use super::conf::{CLIENT_PORT, CLUSTER_PORT, MONITOR_PORT, TLS_DIRECTORY, nats_conf};
use super::credentials::Credentials;
use super::validate::ValidShard;
use crate::platform::{
    Check, EnvValue, EnvVar, FileContent, MountedFile, Port, Probe, Probes, SecretKey, ServiceName,
    ServicePort, Stop, StopSignal, UpdateStrategy, Workload, WorkloadKind,
};

/// Where nats-server finds its configuration.
const CONF: &str = "/etc/nats/nats.conf";

/// Seconds beyond lame duck mode until a node is killed: closing what is left takes moments.
const STOP_MARGIN: u32 = 30;

/// Builds the workload of the nodes, reached by each other under `hosts`.
#[must_use]
pub fn build(shard: &ValidShard, hosts: &[String], credentials: &Credentials) -> Workload {
    Workload {
        id: shard.workload_id(),
        owner: shard.identity.owner("NatsShard"),
        kind: WorkloadKind::Stateful { data: None },
        image: shard.image.clone(),
        command: Vec::new(),
        args: vec!["--config".to_owned(), CONF.to_owned()],
        env: vec![
            EnvVar::of("POD_NAME", EnvValue::PodName),
            EnvVar::of("BIND_ADDRESS", EnvValue::BindAddress),
        ],
        files: files(shard, hosts, credentials),
        ports: vec![
            Port::new("client", CLIENT_PORT),
            Port::new("cluster", CLUSTER_PORT),
            Port::new("monitor", MONITOR_PORT),
        ],
        probes: probes(),
        replicas: shard.nodes,
        spread: shard.spread.clone(),
        resources: shard.resources.clone(),
        stop: Stop {
            signal: StopSignal::Usr2,
            grace_seconds: shard.config.lame_duck_seconds + STOP_MARGIN,
        },
        update: UpdateStrategy::Gated,
        services: services(shard),
    }
}

/// The URL of every node for programs of the platform.
#[must_use]
pub fn urls(shard: &ValidShard, hosts: &[String]) -> Vec<String> {
    let scheme = if shard.tls.is_some() { "tls" } else { "nats" };
    hosts
        .iter()
        .map(|host| format!("{scheme}://{host}:{CLIENT_PORT}"))
        .collect()
}

fn files(shard: &ValidShard, hosts: &[String], credentials: &Credentials) -> Vec<MountedFile> {
    let conf = MountedFile {
        path: CONF.to_owned(),
        content: FileContent::Sensitive(nats_conf(shard, hosts, credentials)),
    };
    let tls = shard.tls.iter().flat_map(|tls| {
        ["tls.crt", "tls.key"].map(|key| MountedFile {
            path: format!("{TLS_DIRECTORY}/{key}"),
            content: FileContent::Secret {
                key: SecretKey {
                    secret: tls.secret_name.clone(),
                    key: key.to_owned(),
                },
                optional: false,
            },
        })
    });
    std::iter::once(conf).chain(tls).collect()
}

/// As the official chart asks, but more often: a node starts in less than a second.
fn probes() -> Probes {
    let healthz = |period, path: &str| {
        Probe::every(
            period,
            Check::Http {
                port: MONITOR_PORT,
                path: path.to_owned(),
            },
        )
    };
    Probes {
        startup: Some(Probe {
            failure_threshold: 90,
            ..healthz(1, "/healthz")
        }),
        readiness: Some(healthz(2, "/healthz")),
        liveness: Some(healthz(30, "/healthz?js-enabled-only=true")),
    }
}

/// A headless name for the nodes among themselves, and one for clients.
fn services(shard: &ValidShard) -> Vec<ServiceName> {
    let port = |name: &str, port| ServicePort {
        name: name.to_owned(),
        port,
        target: port,
    };
    let name = &shard.identity.name;
    vec![
        ServiceName {
            name: name.clone(),
            headless: true,
            ports: vec![
                port("client", CLIENT_PORT),
                port("cluster", CLUSTER_PORT),
                port("monitor", MONITOR_PORT),
            ],
        },
        ServiceName {
            name: format!("{name}-client"),
            headless: false,
            ports: vec![port("client", CLIENT_PORT)],
        },
    ]
}
