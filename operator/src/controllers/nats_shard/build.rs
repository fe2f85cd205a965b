//! The workload of a shard's nodes.

use serde::Serialize;

use super::conf::{CLIENT_PORT, CLUSTER_PORT, Conf, MONITOR_PORT, TLS_DIRECTORY};
use super::validate::ValidShard;
use ofa_crds::api::{Resources, Spread};

use crate::platform::{
    EnvValue, EnvVar, FileContent, MountedFile, Port, Probe, Probes, SecretKey, ServiceName,
    ServicePort, Stop, StopSignal, UpdateStrategy, Workload, WorkloadKind,
};

/// Where nats-server finds its configuration.
const CONF: &str = "/etc/nats/nats.conf";

/// Seconds beyond lame duck mode until a node is killed: closing what is left takes moments.
const STOP_MARGIN: u32 = 30;

/// Builds the workload of the nodes with this configuration.
#[must_use]
pub fn build(shard: &ValidShard, conf: &Conf) -> Workload {
    Workload {
        id: shard.workload_id(),
        owner: shard.identity.owner("NatsShard"),
        chosen: chosen(shard),
        kind: WorkloadKind::Stateful { data: None },
        image: shard.image.clone(),
        command: Vec::new(),
        args: vec!["--config".to_owned(), CONF.to_owned()],
        env: vec![
            EnvVar::of("POD_NAME", EnvValue::PodName),
            EnvVar::of("BIND_ADDRESS", EnvValue::BindAddress),
        ],
        files: files(shard, conf),
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

/// What users choose of a node that it does not take over while it runs.
fn chosen(shard: &ValidShard) -> String {
    #[derive(Serialize)]
    struct Chosen<'a> {
        image: &'a str,
        tls: Option<&'a str>,
        resources: &'a Resources,
        spread: &'a Spread,
        lame_duck_seconds: u32,
    }
    shard.identity.chosen(&Chosen {
        image: &shard.image,
        tls: shard.tls.as_ref().map(|tls| tls.secret_name.as_str()),
        resources: &shard.resources,
        spread: &shard.spread,
        lame_duck_seconds: shard.config.lame_duck_seconds,
    })
}

fn files(shard: &ValidShard, conf: &Conf) -> Vec<MountedFile> {
    let conf = MountedFile {
        path: CONF.to_owned(),
        content: FileContent::Live(conf.text.clone()),
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
    let healthz = |period, path| Probe::http(period, MONITOR_PORT, path);
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
