//! What a Swarm cannot do, by the field that asks for it.

use ofa_crds::api::SpreadMode;

use super::{PLATFORM, quantity};
use crate::platform::{
    Check, EnvValue, PlatformError, Probes, UpdateStrategy, Workload, WorkloadKind,
};

/// The label that stands for the host itself.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

/// Longest name of a service, which is a name on its network.
const LONGEST_NAME: usize = 63;

/// Whether each instance is a service of its own: one that is itself, or is replaced only when asked.
#[must_use]
pub(super) fn identities(workload: &Workload) -> bool {
    matches!(workload.kind, WorkloadKind::Stateful { .. })
        || workload.update == UpdateStrategy::Gated
}

/// Refuses what a Swarm cannot do. Every field is looked at.
///
/// # Errors
/// `Unsupported` with the first such field.
pub fn check(workload: &Workload) -> Result<(), PlatformError> {
    let Workload {
        id,
        owner: _,
        // What a newer operator builds in another way is rolled out here, one instance at a time.
        chosen: _,
        kind,
        image: _,
        command,
        args,
        env,
        // Sizes are looked at where contents are known.
        files: _,
        ports,
        probes,
        replicas,
        spread,
        resources,
        stop: _,
        update: _,
        services,
    } = workload;
    let identities = identities(workload);
    let longest = if identities {
        id.instance(replicas.saturating_sub(1)).len()
    } else {
        id.name.len()
    };
    if longest > LONGEST_NAME {
        return unsupported("id.name", "services have at most 63 characters");
    }
    if let WorkloadKind::Stateful {
        data: Some(data), ..
    } = kind
    {
        if data.size.is_some() {
            return unsupported(
                "data.size",
                "volumes of a host have no size; use an emptyDir, which becomes a volume of the host that keeps the data",
            );
        }
        if !data.path.starts_with('/') {
            return unsupported("data.path", "it must be an absolute path");
        }
    }
    if env.iter().any(|var| var.value == EnvValue::PodIp) {
        return unsupported(
            "env.fieldRef status.podIP",
            "containers do not learn their address; listen on 0.0.0.0, and use metadata.name as the name others know",
        );
    }
    let name_in_words = env
        .iter()
        .filter(|var| var.value == EnvValue::PodName)
        .any(|var| {
            let reference = format!("$({})", var.name);
            command
                .iter()
                .chain(args)
                .any(|word| word.contains(&reference))
        });
    if name_in_words && !identities {
        return unsupported(
            "args",
            "Swarm puts the name of a task into its environment only; let the program read it there",
        );
    }
    if ports.iter().any(|port| port.host_port.is_some()) && identities && *replicas > 1 {
        return unsupported(
            "ports.hostPort",
            "instances with an identity cannot share a port of the host; use one replica",
        );
    }
    if spread.mode == SpreadMode::Required && spread.topology_key != HOSTNAME {
        return unsupported(
            "spread.topologyKey",
            "only hosts can be required to differ; use kubernetes.io/hostname, or spread.mode Preferred",
        );
    }
    for quantities in [&resources.requests, &resources.limits] {
        for (name, quantity) in quantities {
            let read = match name.as_str() {
                "cpu" => quantity::nano_cpus(quantity),
                "memory" => quantity::bytes(quantity),
                _ => None,
            };
            if read.is_none() {
                return unsupported(
                    "resources",
                    &format!("'{name}: {quantity}' is no amount of cpu or memory"),
                );
            }
        }
    }
    let mapped = services
        .iter()
        .flat_map(|service| &service.ports)
        .any(|port| port.port != port.target);
    if mapped {
        return unsupported(
            "services.ports.targetPort",
            "names stand for the containers themselves; make port and targetPort equal",
        );
    }
    check_probes(probes)
}

/// A command is run by the engine, which restarts what fails it: there is one health check for all.
fn check_probes(probes: &Probes) -> Result<(), PlatformError> {
    let Probes {
        startup,
        readiness,
        liveness,
    } = probes;
    let commands = [startup, readiness, liveness].into_iter().flatten();
    let mut commands = commands.filter_map(|probe| match &probe.check {
        Check::Exec { command } => Some(command),
        Check::Http { .. } | Check::Tcp { .. } => None,
    });
    let first = commands.next();
    if commands.any(|other| Some(other) != first) {
        return unsupported(
            "probes.exec",
            "a container has one health check; use the same command in all probes",
        );
    }
    Ok(())
}

fn unsupported<T>(field: &'static str, reason: &str) -> Result<T, PlatformError> {
    Err(PlatformError::Unsupported {
        platform: PLATFORM,
        field,
        reason: reason.to_owned(),
    })
}
