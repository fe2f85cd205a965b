//! The pure translation of plain manifests into workloads.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ofa_crds::api::Spread;
use thiserror::Error;

use super::{
    Container, ContainerPort, Deployment, Env, EnvSource, FieldPath, FieldRef, LabelSelector,
    PodTemplate, PortReference, ProbeSpec, SecretKeyRef, Service, StatefulSet,
};
use crate::platform::{
    Check, DataVolume, EnvValue, EnvVar, Owner, Port, Probe, Probes, SecretKey, ServiceName,
    ServicePort, Stop, StopSignal, UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};

/// A manifest that Kubernetes would refuse, or that asks for more than the subset holds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct PlainError {
    field: &'static str,
    reason: String,
}

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T, PlainError> {
    Err(PlainError {
        field,
        reason: reason.into(),
    })
}

/// A Deployment or a StatefulSet.
#[derive(Debug, Clone, Copy)]
pub enum Plain<'a> {
    /// Instances alike.
    Deployment(&'a Deployment),
    /// Instances with identities.
    StatefulSet(&'a StatefulSet),
}

/// Translates a manifest; `services` are all of its namespace.
///
/// # Errors
/// Names the field that cannot be honoured.
pub fn workload(plain: Plain<'_>, services: &[&Service]) -> Result<Workload, PlainError> {
    match plain {
        Plain::Deployment(deployment) => {
            let spec = &deployment.spec;
            let scratch = single_mount(&spec.template)?.map(|(_, path)| path.to_owned());
            check_volumes(&spec.template, None)?;
            let parts = Parts {
                meta: &deployment.metadata,
                kind_name: "Deployment",
                selector: &spec.selector,
                template: &spec.template,
                replicas: spec.replicas,
                kind: WorkloadKind::Stateless { scratch },
            };
            parts.workload(services)
        }
        Plain::StatefulSet(set) => {
            let spec = &set.spec;
            let claim = match spec.volume_claim_templates.as_slice() {
                [] => None,
                [claim] => Some(claim),
                _ => {
                    return refuse(
                        "spec.volumeClaimTemplates",
                        "more than one is not supported; use one",
                    );
                }
            };
            check_volumes(
                &spec.template,
                claim.map(|claim| claim.metadata.name.as_str()),
            )?;
            let size =
                claim.and_then(|claim| claim.spec.resources.requests.get("storage").cloned());
            let data = single_mount(&spec.template)?.map(|(_, path)| DataVolume {
                path: path.to_owned(),
                size,
            });
            let parts = Parts {
                meta: &set.metadata,
                kind_name: "StatefulSet",
                selector: &spec.selector,
                template: &spec.template,
                replicas: spec.replicas,
                kind: WorkloadKind::Stateful { data },
            };
            let headless =
                |service: &&Service| service.metadata.name.as_deref() == Some(&spec.service_name);
            if !services.iter().any(headless) {
                return refuse(
                    "spec.serviceName",
                    format!("there is no Service {}; add it", spec.service_name),
                );
            }
            parts.workload(services)
        }
    }
}

struct Parts<'a> {
    meta: &'a ObjectMeta,
    kind_name: &'a str,
    selector: &'a LabelSelector,
    template: &'a PodTemplate,
    replicas: u16,
    kind: WorkloadKind,
}

impl Parts<'_> {
    fn workload(self, services: &[&Service]) -> Result<Workload, PlainError> {
        let pod = &self.template.spec;
        let [container] = pod.containers.as_slice() else {
            return refuse(
                "spec.template.spec.containers",
                "exactly one container is supported",
            );
        };
        if !matches(&self.selector.match_labels, &self.template.metadata.labels) {
            return refuse(
                "spec.selector",
                "it does not match spec.template.metadata.labels",
            );
        }
        if pod.enable_service_links == Some(true) {
            return refuse(
                "spec.template.spec.enableServiceLinks",
                "only false is supported",
            );
        }
        let labels = &self.template.metadata.labels;
        let selecting = services.iter().filter(|service| {
            !service.spec.selector.is_empty() && matches(&service.spec.selector, labels)
        });
        let name = self.meta.name.clone().unwrap_or_default();
        Ok(Workload {
            id: WorkloadId::new(
                self.meta.namespace.as_deref().unwrap_or("default"),
                name.as_str(),
            ),
            chosen: String::new(),
            owner: Owner {
                kind: self.kind_name.to_owned(),
                name,
                uid: self.meta.uid.clone().unwrap_or_default(),
            },
            kind: self.kind,
            image: container.image.clone(),
            command: container.command.clone(),
            args: container.args.clone(),
            env: environment(container)?,
            files: Vec::new(),
            ports: container.ports.iter().map(port).collect(),
            probes: probes(container)?,
            replicas: self.replicas,
            spread: Spread::default(),
            resources: container.resources.clone(),
            stop: Stop {
                signal: StopSignal::Term,
                grace_seconds: pod.termination_grace_period_seconds,
            },
            update: UpdateStrategy::Rolling,
            services: selecting
                .map(|s| service(s, &container.ports))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn matches(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Name and path of the container's one volume.
fn single_mount(template: &PodTemplate) -> Result<Option<(&str, &str)>, PlainError> {
    let mounts = template
        .spec
        .containers
        .iter()
        .flat_map(|container| &container.volume_mounts);
    let mounts: Vec<_> = mounts.collect();
    match mounts[..] {
        [] => Ok(None),
        [mount] => Ok(Some((&mount.name, &mount.mount_path))),
        _ => refuse(
            "spec.template.spec.containers.volumeMounts",
            "more than one is not supported; use one",
        ),
    }
}

fn check_volumes(template: &PodTemplate, claim: Option<&str>) -> Result<(), PlainError> {
    let mounted = single_mount(template)?.map(|(name, _)| name);
    let volumes = template
        .spec
        .volumes
        .iter()
        .map(|volume| volume.name.as_str());
    let known: Vec<&str> = volumes.chain(claim).collect();
    match mounted {
        Some(name) if !known.contains(&name) => refuse(
            "spec.template.spec.containers.volumeMounts",
            format!("there is no volume {name}"),
        ),
        _ => Ok(()),
    }
}

/// Our programs listen where this variable says, and everywhere without it. Kubernetes leaves it unset; elsewhere
/// instances may share a network, and each gets the address that is its own.
const BIND_ADDRESS: &str = "BIND_ADDRESS";

fn environment(container: &Container) -> Result<Vec<EnvVar>, PlainError> {
    let named = container.env.iter().any(|env| env.name == BIND_ADDRESS);
    let own = (!named).then(|| Ok(EnvVar::of(BIND_ADDRESS, EnvValue::BindAddress)));
    let said = container.env.iter().map(env);
    own.into_iter().chain(said).collect()
}

fn env(env: &Env) -> Result<EnvVar, PlainError> {
    let value = match (&env.value, &env.value_from) {
        (Some(text), None) => EnvValue::Text(text.clone()),
        (None, None) => EnvValue::Text(String::new()),
        (
            None,
            Some(EnvSource {
                field_ref: Some(FieldRef { field_path }),
                secret_key_ref: None,
            }),
        ) => match field_path {
            FieldPath::PodIp => EnvValue::PodIp,
            FieldPath::PodName => EnvValue::PodName,
        },
        (
            None,
            Some(EnvSource {
                field_ref: None,
                secret_key_ref: Some(SecretKeyRef { name, key }),
            }),
        ) => EnvValue::Secret(SecretKey {
            secret: name.clone(),
            key: key.clone(),
        }),
        _ => {
            return refuse(
                "env",
                format!(
                    "{} needs exactly one of value, fieldRef, secretKeyRef",
                    env.name
                ),
            );
        }
    };
    Ok(EnvVar::of(env.name.as_str(), value))
}

fn port(port: &ContainerPort) -> Port {
    Port {
        name: port
            .name
            .clone()
            .unwrap_or_else(|| port.container_port.to_string()),
        port: port.container_port,
        host_port: port.host_port,
    }
}

fn port_number(reference: &PortReference, ports: &[ContainerPort]) -> Result<u16, PlainError> {
    match reference {
        PortReference::Number(number) => Ok(*number),
        PortReference::Name(name) => {
            let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).map_or_else(
                || refuse("ports", format!("there is no container port named {name}")),
                Ok,
            )
        }
    }
}

fn probes(container: &Container) -> Result<Probes, PlainError> {
    let convert = |spec: &Option<ProbeSpec>| {
        spec.as_ref()
            .map(|spec| probe(spec, &container.ports))
            .transpose()
    };
    Ok(Probes {
        startup: convert(&container.startup_probe)?,
        readiness: convert(&container.readiness_probe)?,
        liveness: convert(&container.liveness_probe)?,
    })
}

fn probe(spec: &ProbeSpec, ports: &[ContainerPort]) -> Result<Probe, PlainError> {
    let check = match (&spec.http_get, &spec.tcp_socket, &spec.exec) {
        (Some(get), None, None) => Check::Http {
            port: port_number(&get.port, ports)?,
            path: get.path.clone(),
        },
        (None, Some(socket), None) => Check::Tcp {
            port: port_number(&socket.port, ports)?,
        },
        (None, None, Some(exec)) => Check::Exec {
            command: exec.command.clone(),
        },
        _ => return refuse("probe", "exactly one of httpGet, tcpSocket, exec is needed"),
    };
    Ok(Probe {
        check,
        initial_delay: spec.initial_delay_seconds,
        period: spec.period_seconds,
        timeout: spec.timeout_seconds,
        failure_threshold: spec.failure_threshold,
    })
}

fn service(service: &Service, ports: &[ContainerPort]) -> Result<ServiceName, PlainError> {
    let port = |spec: &super::ServicePortSpec| {
        let target = spec
            .target_port
            .as_ref()
            .map(|port| port_number(port, ports))
            .transpose()?;
        Ok(ServicePort {
            name: spec.name.clone().unwrap_or_else(|| spec.port.to_string()),
            port: spec.port,
            target: target.unwrap_or(spec.port),
        })
    };
    Ok(ServiceName {
        name: service.metadata.name.clone().unwrap_or_default(),
        headless: service.spec.cluster_ip.is_some(),
        ports: service
            .spec
            .ports
            .iter()
            .map(port)
            .collect::<Result<_, _>>()?,
    })
}
