//! The pure translation of a workload into services of a Swarm.

use std::collections::HashMap;

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    EndpointSpec, EndpointSpecModeEnum, Mount, MountTmpfsOptions, MountType, MountVolumeOptions,
    NetworkAttachmentConfig, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated,
    ServiceSpecUpdateConfig, ServiceSpecUpdateConfigFailureActionEnum,
    ServiceSpecUpdateConfigOrderEnum, TaskSpec, TaskSpecContainerSpec,
    TaskSpecContainerSpecConfigs, TaskSpecContainerSpecFile, TaskSpecContainerSpecFile1,
    TaskSpecContainerSpecSecrets, TaskSpecPlacement, TaskSpecPlacementPreferences,
    TaskSpecPlacementSpread, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};
use ofa_crds::api::SpreadMode;

use super::check::{HOSTNAME, check, identities};
use super::environment::{environment, expanded, variables};
use super::files::{Secrets, StoredFile, files};
use super::{health, labels, quantity};
use crate::digest::digest;
use crate::platform::{
    DataVolume, PlatformError, Port, ServiceName, StopSignal, Workload, WorkloadKind,
};

/// Docker counts time in nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// Pause before a container that has ended is replaced: short, because others wait for it; Swarm knows no longer one
/// for what fails again and again.
const RESTART_DELAY: i64 = 2 * SECOND;

/// Where the engine cannot see whether an instance is ready, the next one of a roll waits this long: longer than a
/// forwarder takes from its start until it has partitions.
const BLIND_DELAY: i64 = 10 * SECOND;

/// User and group that our own programs and NATS run as.
const NOBODY: &str = "65532:65532";

/// Kinds whose programs need no rights at all; what is in images of others is not known.
const OWN_KINDS: [&str; 3] = ["NatsShard", "ForwarderPool", "AssetGroup"];

/// What surrounds a workload.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Which installation of the operator.
    pub installation: &'a str,
    /// The overlay network.
    pub network: &'a str,
    /// Secrets that the workload refers to.
    pub secrets: &'a Secrets,
}

/// A workload as a Swarm has it.
#[derive(Clone, PartialEq)]
pub struct Translation {
    /// The services, by ordinal where each instance is one. Configs and secrets go by their names, which the engine
    /// wants with their ids.
    pub services: Vec<ServiceSpec>,
    /// Configs and secrets.
    pub files: Vec<StoredFile>,
    /// What tells these containers from those of another description.
    pub template: String,
}

/// Translates a workload.
///
/// # Errors
/// `Unsupported` with the first field that a Swarm cannot honour; `MissingSecret`.
pub fn translate(workload: &Workload, around: &Around<'_>) -> Result<Translation, PlatformError> {
    check(workload)?;
    let files = files(workload, around.secrets)?;
    let template = template(workload, around, &files);
    let made = |ordinal| service(workload, around, &files, &template, ordinal);
    let services: Result<Vec<ServiceSpec>, PlatformError> = if identities(workload) {
        (0..workload.replicas)
            .map(|ordinal| made(Some(ordinal)))
            .collect()
    } else {
        made(None).map(|service| vec![service])
    };
    Ok(Translation {
        services: services?,
        files,
        template,
    })
}

/// What an instance is restarted for when it changes: everything it gets to see. How it lies and how it is stopped are
/// not among it.
fn template(workload: &Workload, around: &Around<'_>, files: &[StoredFile]) -> String {
    let Workload {
        kind,
        image,
        command,
        args,
        env,
        ports,
        probes,
        resources,
        services,
        ..
    } = workload;
    let seen = serde_json::json!([
        kind, image, command, args, env, ports, probes, resources, services
    ]);
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let values: Vec<&str> = variables(workload, around.secrets)
        .filter_map(Result::ok)
        .collect();
    let all = [
        &seen.to_string(),
        around.network,
        &names.join(","),
        &values.join("\0"),
    ];
    digest(&all)
}

fn service(
    workload: &Workload,
    around: &Around<'_>,
    files: &[StoredFile],
    template: &str,
    ordinal: Option<u16>,
) -> Result<ServiceSpec, PlatformError> {
    let name = ordinal.map_or_else(
        || workload.id.name.clone(),
        |ordinal| workload.id.instance(ordinal),
    );
    let replicas = if ordinal.is_some() {
        1
    } else {
        i64::from(workload.replicas)
    };
    Ok(ServiceSpec {
        labels: Some(labels::of_service(
            around.installation,
            workload,
            ordinal,
            template,
        )),
        task_template: Some(TaskSpec {
            container_spec: Some(container(workload, around, files, template, ordinal)?),
            resources: quantity::resources(&workload.resources),
            restart_policy: Some(TaskSpecRestartPolicy {
                condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
                delay: Some(RESTART_DELAY),
                ..TaskSpecRestartPolicy::default()
            }),
            placement: Some(placement(workload, ordinal)),
            networks: Some(vec![network(workload, around, ordinal)]),
            ..TaskSpec::default()
        }),
        mode: Some(ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated {
                replicas: Some(replicas),
            }),
            ..ServiceSpecMode::default()
        }),
        update_config: Some(update(workload, ordinal.is_some())),
        endpoint_spec: Some(endpoint(&workload.ports)),
        name: Some(name),
        ..ServiceSpec::default()
    })
}

fn container(
    workload: &Workload,
    around: &Around<'_>,
    files: &[StoredFile],
    template: &str,
    ordinal: Option<u16>,
) -> Result<TaskSpecContainerSpec, PlatformError> {
    let own = OWN_KINDS.contains(&workload.owner.kind.as_str());
    let words = |words: &[String]| {
        let words: Vec<String> = expanded(workload, around.secrets, ordinal, words)?;
        Ok::<_, PlatformError>(Some(words).filter(|words| !words.is_empty()))
    };
    let mut marks = labels::of_workload(around.installation, &workload.id);
    marks.insert(labels::TEMPLATE.to_owned(), template.to_owned());
    marks.extend(ordinal.map(|ordinal| (labels::ORDINAL.to_owned(), ordinal.to_string())));
    marks.extend(
        health::as_label(&workload.probes).map(|probes| (labels::PROBES.to_owned(), probes)),
    );
    Ok(TaskSpecContainerSpec {
        image: Some(workload.image.clone()),
        labels: Some(marks.into_iter().collect()),
        command: words(&workload.command)?,
        args: words(&workload.args)?,
        hostname: ordinal.map(|ordinal| workload.id.instance(ordinal)),
        env: Some(environment(workload, around.secrets, ordinal)?).filter(|env| !env.is_empty()),
        user: own.then(|| NOBODY.to_owned()),
        read_only: own.then_some(true),
        capability_drop: own.then(|| vec!["ALL".to_owned()]),
        mounts: mount(workload, ordinal).map(|mount| vec![mount]),
        stop_signal: Some(match workload.stop.signal {
            StopSignal::Term => "SIGTERM".to_owned(),
            StopSignal::Usr2 => "SIGUSR2".to_owned(),
        }),
        stop_grace_period: Some(i64::from(workload.stop.grace_seconds) * SECOND),
        health_check: health::asked_inside(&workload.probes),
        configs: some(files.iter().filter(|file| !file.sensitive).map(config)),
        secrets: some(files.iter().filter(|file| file.sensitive).map(secret)),
        ..TaskSpecContainerSpec::default()
    })
}

fn some<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let items: Vec<T> = items.collect();
    Some(items).filter(|items| !items.is_empty())
}

/// Everybody in the container may read it: it has one program, run by nobody in particular.
const READABLE: u32 = 0o444;

fn config(file: &StoredFile) -> TaskSpecContainerSpecConfigs {
    TaskSpecContainerSpecConfigs {
        config_name: Some(file.name.clone()),
        file: Some(TaskSpecContainerSpecFile1 {
            name: Some(file.path.clone()),
            uid: Some("0".to_owned()),
            gid: Some("0".to_owned()),
            mode: Some(READABLE),
        }),
        ..TaskSpecContainerSpecConfigs::default()
    }
}

fn secret(file: &StoredFile) -> TaskSpecContainerSpecSecrets {
    TaskSpecContainerSpecSecrets {
        secret_name: Some(file.name.clone()),
        file: Some(TaskSpecContainerSpecFile {
            name: Some(file.path.clone()),
            uid: Some("0".to_owned()),
            gid: Some("0".to_owned()),
            mode: Some(READABLE),
        }),
        ..TaskSpecContainerSpecSecrets::default()
    }
}

/// A volume of the host for data, memory for what is gone with the container.
fn mount(workload: &Workload, ordinal: Option<u16>) -> Option<Mount> {
    match (&workload.kind, ordinal) {
        (
            WorkloadKind::Stateful {
                data: Some(DataVolume { path, size: _ }),
            },
            Some(ordinal),
        ) => Some(Mount {
            target: Some(path.clone()),
            source: Some(format!("{}-data", workload.id.instance(ordinal))),
            typ: Some(MountType::VOLUME),
            volume_options: Some(MountVolumeOptions {
                labels: Some(HashMap::from([(
                    labels::NAMESPACE.to_owned(),
                    workload.id.namespace.clone(),
                )])),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }),
        (
            WorkloadKind::Stateless {
                scratch: Some(path),
            },
            _,
        ) => Some(Mount {
            target: Some(path.clone()),
            typ: Some(MountType::TMPFS),
            tmpfs_options: Some(MountTmpfsOptions {
                mode: Some(0o1777),
                ..MountTmpfsOptions::default()
            }),
            ..Mount::default()
        }),
        _ => None,
    }
}

/// Swarm spreads the tasks of a service over hosts by itself. The host of an instance with an identity is chosen when
/// hosts are known.
fn placement(workload: &Workload, ordinal: Option<u16>) -> TaskSpecPlacement {
    if ordinal.is_some() {
        return TaskSpecPlacement::default();
    }
    let key = &workload.spread.topology_key;
    let preference = (key != HOSTNAME).then(|| TaskSpecPlacementPreferences {
        spread: Some(TaskSpecPlacementSpread {
            spread_descriptor: Some(format!("node.labels.{key}")),
        }),
    });
    TaskSpecPlacement {
        preferences: preference.map(|preference| vec![preference]),
        max_replicas: (workload.spread.mode == SpreadMode::Required).then_some(1),
        ..TaskSpecPlacement::default()
    }
}

/// One task after the other. What others reach by a name is replaced before it goes, where there is room for both.
fn update(workload: &Workload, identity: bool) -> ServiceSpecUpdateConfig {
    use ServiceSpecUpdateConfigFailureActionEnum as OnFailure;
    use ServiceSpecUpdateConfigOrderEnum as Order;
    let apart = workload.spread.mode == SpreadMode::Required
        || workload.ports.iter().any(|port| port.host_port.is_some());
    let replaced_first = !identity && !apart && !workload.services.is_empty();
    let seen = health::asked_inside(&workload.probes).is_some();
    ServiceSpecUpdateConfig {
        parallelism: Some(1),
        delay: Some(if identity || seen { 0 } else { BLIND_DELAY }),
        // Of several alike the others stay as they are when the first does not come up.
        failure_action: Some(if identity {
            OnFailure::CONTINUE
        } else {
            OnFailure::PAUSE
        }),
        order: Some(if replaced_first {
            Order::START_FIRST
        } else {
            Order::STOP_FIRST
        }),
        ..ServiceSpecUpdateConfig::default()
    }
}

/// Names stand for the containers themselves. A virtual address in front of them would forget connections that are
/// quiet for a quarter of an hour, as those of subscribers are.
fn endpoint(ports: &[Port]) -> EndpointSpec {
    let published = ports.iter().filter_map(|port| {
        let host_port = port.host_port?;
        Some(EndpointPortConfig {
            name: Some(port.name.clone()),
            protocol: Some(EndpointPortConfigProtocolEnum::TCP),
            target_port: Some(i64::from(port.port)),
            published_port: Some(i64::from(host_port)),
            publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
        })
    });
    EndpointSpec {
        mode: Some(EndpointSpecModeEnum::DNSRR),
        ports: some(published),
    }
}

/// The service's own name, which Swarm answers for by itself, and the names others use.
fn network(
    workload: &Workload,
    around: &Around<'_>,
    ordinal: Option<u16>,
) -> NetworkAttachmentConfig {
    let namespace = &workload.id.namespace;
    let aliases = workload.services.iter().flat_map(|service| {
        let ServiceName {
            name,
            headless,
            ports: _,
        } = service;
        let instance = ordinal
            .filter(|_| *headless)
            .map(|ordinal| workload.id.instance(ordinal));
        let of_instance = instance.into_iter().flat_map(move |instance| {
            [
                format!("{instance}.{name}"),
                format!("{instance}.{name}.{namespace}"),
            ]
        });
        [name.clone(), format!("{name}.{namespace}")]
            .into_iter()
            .chain(of_instance)
    });
    NetworkAttachmentConfig {
        target: Some(around.network.to_owned()),
        aliases: some(aliases),
        ..NetworkAttachmentConfig::default()
    }
}
