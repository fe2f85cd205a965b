//! The pods of a workload.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe as KubeProbe,
    ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, TCPSocketAction,
    Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ofa_crds::api::{Resources, Spread, SpreadMode};

use super::{files, labels};
use crate::platform::{
    Check, EnvValue, EnvVar as Variable, Probe, Stop, StopSignal, Workload, WorkloadKind,
};

/// User and group of all programs: no account of any host, the same as distroless images' `nonroot`.
const NOBODY: i64 = 65_532;

/// The label that tells hosts apart.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The volume of a workload's data or scratch directory.
pub(super) const DATA_VOLUME: &str = "data";

/// The template of a workload's pods. `inputs` stands for everything mounted from elsewhere: when it changes, the
/// pods are replaced.
pub(super) fn template(
    workload: &Workload,
    pod_labels: BTreeMap<String, String>,
    inputs: &str,
) -> PodTemplateSpec {
    let (mut volumes, mut mounts) = files::volumes(&workload.id.name, &workload.files);
    let (data, mount) = data(&workload.kind);
    volumes.extend(data);
    mounts.extend(mount);
    let spec = PodSpec {
        service_account_name: Some(workload.id.name.clone()),
        automount_service_account_token: Some(false),
        // A Service called like a setting's prefix would otherwise put variables into the environment.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(workload.stop.grace_seconds)),
        affinity: Some(affinity(workload)),
        security_context: Some(pod_security()),
        containers: vec![container(workload, mounts)],
        volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
        ..PodSpec::default()
    };
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    let mark = crate::digest::digest(&(&template, inputs));
    if let Some(meta) = &mut template.metadata {
        meta.annotations = Some([(labels::TEMPLATE.to_owned(), mark)].into());
    }
    template
}

fn container(workload: &Workload, mounts: Vec<VolumeMount>) -> Container {
    let probes = &workload.probes;
    let listed = |list: &Vec<String>| Some(list.clone()).filter(|list| !list.is_empty());
    Container {
        name: labels::component(&workload.owner.kind).to_owned(),
        image: Some(workload.image.clone()),
        command: listed(&workload.command),
        args: listed(&workload.args),
        env: Some(workload.env.iter().map(variable).collect()),
        ports: Some(workload.ports.iter().map(port).collect()),
        startup_probe: probes.startup.as_ref().map(probe),
        readiness_probe: probes.readiness.as_ref().map(probe),
        liveness_probe: probes.liveness.as_ref().map(probe),
        lifecycle: before_stop(workload.stop),
        resources: Some(resources(&workload.resources)),
        security_context: Some(container_security()),
        // What a program says last stands in the pod's status, where the operator reads it.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
        ..Container::default()
    }
}

fn variable(variable: &Variable) -> EnvVar {
    let field = |path: &str| EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: path.to_owned(),
        }),
        ..EnvVarSource::default()
    };
    let (value, value_from) = match &variable.value {
        EnvValue::Text(text) => (Some(text.clone()), None),
        EnvValue::PodIp => (None, Some(field("status.podIP"))),
        EnvValue::PodName => (None, Some(field("metadata.name"))),
        // A pod has a network of its own, and port-forwarding arrives on its loopback.
        EnvValue::BindAddress => (Some("0.0.0.0".to_owned()), None),
        EnvValue::Secret(key) => (
            None,
            Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: key.secret.clone(),
                    key: key.key.clone(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
        ),
    };
    EnvVar {
        name: variable.name.clone(),
        value,
        value_from,
    }
}

fn port(port: &crate::platform::Port) -> ContainerPort {
    ContainerPort {
        name: Some(port.name.clone()),
        container_port: i32::from(port.port),
        host_port: port.host_port.map(i32::from),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(probe: &Probe) -> KubeProbe {
    let seconds = |seconds: u32| Some(i32::try_from(seconds).unwrap_or(i32::MAX));
    let mut asked = KubeProbe {
        initial_delay_seconds: seconds(probe.initial_delay).filter(|&delay| delay > 0),
        period_seconds: seconds(probe.period),
        timeout_seconds: seconds(probe.timeout),
        failure_threshold: seconds(probe.failure_threshold),
        ..KubeProbe::default()
    };
    match &probe.check {
        Check::Http { port, path } => {
            asked.http_get = Some(HTTPGetAction {
                path: Some(path.clone()),
                port: IntOrString::Int(i32::from(*port)),
                ..HTTPGetAction::default()
            });
        }
        Check::Tcp { port } => {
            asked.tcp_socket = Some(TCPSocketAction {
                port: IntOrString::Int(i32::from(*port)),
                ..TCPSocketAction::default()
            });
        }
        Check::Exec { command } => {
            asked.exec = Some(ExecAction {
                command: Some(command.clone()),
            });
        }
    }
    asked
}

/// nats-server sends its clients away one by one when told so; SIGTERM, which follows, does not cut that short.
/// It is process 1 of its container, as in the official images and chart.
fn before_stop(stop: Stop) -> Option<Lifecycle> {
    let lame_duck = ["nats-server", "--signal", "ldm=1"].map(str::to_owned);
    match stop.signal {
        StopSignal::Term => None,
        StopSignal::Usr2 => Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction {
                    command: Some(lame_duck.into()),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
    }
}

fn resources(resources: &Resources) -> ResourceRequirements {
    let quantities = |from: &BTreeMap<String, String>| {
        let all = from
            .iter()
            .map(|(name, amount)| (name.clone(), Quantity(amount.clone())));
        Some(all.collect::<BTreeMap<_, _>>()).filter(|all| !all.is_empty())
    };
    let Resources { requests, limits } = resources;
    ResourceRequirements {
        requests: quantities(requests),
        limits: quantities(limits),
        ..ResourceRequirements::default()
    }
}

/// Instances apart by the topology key, as strictly as asked; and on different hosts if that is possible, also where
/// the key is a wider one.
fn affinity(workload: &Workload) -> Affinity {
    let Spread { topology_key, mode } = &workload.spread;
    let term = |key: &str| PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(labels::selector(&workload.id, &workload.owner)),
            ..LabelSelector::default()
        }),
        topology_key: key.to_owned(),
        ..PodAffinityTerm::default()
    };
    let preferred = |key: &str, weight| WeightedPodAffinityTerm {
        weight,
        pod_affinity_term: term(key),
    };
    let mut preferences = Vec::new();
    let required = match mode {
        SpreadMode::Required => Some(vec![term(topology_key)]),
        SpreadMode::Preferred => {
            preferences.push(preferred(topology_key, 100));
            None
        }
    };
    if topology_key != HOSTNAME {
        preferences.push(preferred(HOSTNAME, 50));
    }
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: Some(preferences)
                .filter(|preferences| !preferences.is_empty()),
        }),
        ..Affinity::default()
    }
}

/// What the Pod Security Standard `restricted` asks of a pod.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NOBODY),
        run_as_group: Some(NOBODY),
        fs_group: Some(NOBODY),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// What it asks of a container, and a root file system that nobody writes to.
fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

/// The directory that a program writes to: a claim's where a size is asked for, otherwise the host's.
fn data(kind: &WorkloadKind) -> (Option<Volume>, Option<VolumeMount>) {
    let (path, claimed) = match kind {
        WorkloadKind::Stateless { scratch } => (scratch.as_deref(), false),
        WorkloadKind::Stateful { data } => (
            data.as_ref().map(|data| data.path.as_str()),
            data.as_ref().is_some_and(|data| data.size.is_some()),
        ),
    };
    let Some(path) = path else {
        return (None, None);
    };
    let empty = Volume {
        name: DATA_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mount = VolumeMount {
        name: DATA_VOLUME.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    ((!claimed).then_some(empty), Some(mount))
}
