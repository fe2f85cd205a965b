//! What is made of workloads, as snapshots.

use ofa_crds::api::{Resources, Spread, SpreadMode};

use super::Secrets;
use super::spec::{Around, Translation, translate};
use crate::platform::{
    Check, DataVolume, EnvValue, EnvVar, FileContent, MountedFile, Owner, Port, Probe, Probes,
    SecretData, SecretKey, ServiceName, ServicePort, Stop, StopSignal, UpdateStrategy, Workload,
    WorkloadId, WorkloadKind,
};

fn workload(kind: &str, name: &str) -> Workload {
    Workload {
        id: WorkloadId::new("plant", name),
        owner: Owner {
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: "uid".to_owned(),
        },
        chosen: String::new(),
        kind: WorkloadKind::Stateless { scratch: None },
        image: "example/program:1".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        files: Vec::new(),
        ports: Vec::new(),
        probes: Probes::default(),
        replicas: 2,
        spread: Spread::default(),
        resources: Resources::default(),
        stop: Stop::default(),
        update: UpdateStrategy::Rolling,
        services: Vec::new(),
    }
}

fn secrets() -> Secrets {
    let data = [("user".to_owned(), "ann".to_owned())].into();
    Secrets::from([("login".to_owned(), SecretData(data))])
}

fn translated(workload: &Workload) -> Translation {
    let around = Around {
        installation: "test",
        network: "factory-net",
        secrets: &secrets(),
    };
    translate(workload, &around).unwrap()
}

/// Labels have no order of their own.
fn sorted(workload: &Workload) -> serde_json::Value {
    let services = &translated(workload).services;
    serde_json::from_str(&serde_json::to_string(services).unwrap()).unwrap()
}

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        port,
        target: port,
    }
}

/// A shard of two nodes, as its controller asks for it.
fn shard() -> Workload {
    let http = Check::Http {
        port: 8222,
        path: "/healthz".to_owned(),
    };
    Workload {
        kind: WorkloadKind::Stateful { data: None },
        args: vec!["--config".to_owned(), "/etc/nats/nats.conf".to_owned()],
        env: vec![
            EnvVar::of("POD_NAME", EnvValue::PodName),
            EnvVar::of("BIND_ADDRESS", EnvValue::BindAddress),
        ],
        files: vec![MountedFile {
            path: "/etc/nats/nats.conf".to_owned(),
            content: FileContent::Sensitive("server_name: $POD_NAME".to_owned()),
        }],
        ports: vec![Port::new("client", 4222)],
        probes: Probes {
            readiness: Some(Probe::every(2, http)),
            ..Probes::default()
        },
        stop: Stop {
            signal: StopSignal::Usr2,
            grace_seconds: 60,
        },
        resources: Resources {
            requests: [("cpu".to_owned(), "250m".to_owned())].into(),
            limits: [("memory".to_owned(), "64Mi".to_owned())].into(),
        },
        update: UpdateStrategy::Gated,
        services: vec![
            ServiceName {
                name: "line".to_owned(),
                headless: true,
                ports: vec![port("client", 4222)],
            },
            ServiceName {
                name: "line-client".to_owned(),
                headless: false,
                ports: vec![port("client", 4222)],
            },
        ],
        ..workload("NatsShard", "line")
    }
}

/// Something with every option that instances alike may have.
fn pool() -> Workload {
    let key = SecretKey {
        secret: "login".to_owned(),
        key: "user".to_owned(),
    };
    Workload {
        kind: WorkloadKind::Stateless {
            scratch: Some("/tmp".to_owned()),
        },
        command: vec!["run".to_owned()],
        args: vec!["--topic=$(TOPIC)".to_owned()],
        env: vec![
            EnvVar::text("TOPIC", "{{events}}"),
            EnvVar::of("ME", EnvValue::PodName),
            EnvVar::text("LONG", "$(TOPIC) of $(ME)"),
            EnvVar::of("USER", EnvValue::Secret(key)),
        ],
        files: vec![MountedFile {
            path: "/etc/settings".to_owned(),
            content: FileContent::Plain("a: b".to_owned()),
        }],
        ports: vec![Port {
            host_port: Some(8002),
            ..Port::new("http", 8002)
        }],
        probes: Probes {
            liveness: Some(Probe::every(
                5,
                Check::Exec {
                    command: vec!["ok".to_owned()],
                },
            )),
            ..Probes::default()
        },
        spread: Spread {
            topology_key: "hall".to_owned(),
            mode: SpreadMode::Preferred,
        },
        ..workload("Deployment", "pool")
    }
}

#[test]
fn a_shard() {
    let shard = shard();
    insta::assert_yaml_snapshot!(sorted(&shard));
    let files = translated(&shard).files;
    assert!(files[0].sensitive && files[0].name.starts_with("line-nats.conf-"));
}

#[test]
fn instances_alike() {
    insta::assert_yaml_snapshot!(sorted(&pool()));
}

#[test]
fn a_changed_file_is_another_file_and_another_template() {
    let mut other = shard();
    other.files[0].content = FileContent::Sensitive("server_name: x".to_owned());
    let (before, after) = (translated(&shard()), translated(&other));
    assert_ne!(before.files[0].name, after.files[0].name);
    assert_ne!(before.template, after.template);
    // Neither how many there are nor how they are stopped is a reason for a restart.
    let mut same = shard();
    same.replicas = 3;
    same.stop.grace_seconds = 90;
    same.spread.mode = SpreadMode::Required;
    assert_eq!(translated(&same).template, before.template);
}

#[test]
fn required_spread_is_at_most_one_on_a_host() {
    let mut apart = workload("ForwarderPool", "apart");
    apart.spread.mode = SpreadMode::Required;
    let spec = &translated(&apart).services[0];
    let placement = spec.task_template.as_ref().unwrap().placement.as_ref();
    assert_eq!(placement.unwrap().max_replicas, Some(1));
}

#[test]
fn data_lies_on_a_volume_of_the_instance() {
    let mut kafka = workload("StatefulSet", "kafka");
    kafka.kind = WorkloadKind::Stateful {
        data: Some(DataVolume {
            path: "/data".to_owned(),
            size: None,
        }),
    };
    let services = translated(&kafka).services;
    let volume = |ordinal: usize| {
        let task = services[ordinal].task_template.as_ref().unwrap();
        let mounts = task.container_spec.as_ref().unwrap().mounts.as_ref();
        mounts.unwrap()[0].source.clone().unwrap()
    };
    assert_eq!([volume(0), volume(1)], ["kafka-0-data", "kafka-1-data"]);
}
