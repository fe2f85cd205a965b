//! How instances are asked for their state: commands by the engine, inside the container; HTTP and TCP by the operator,
//! over the network, because an image need hold no program that could ask.

use bollard::models::HealthConfig;

use super::labels::{Labels, PROBES};
use crate::platform::{Check, Probe, Probes};

/// Docker counts time in nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// Until then a container that has just started may fail its health check: Swarm restarts what is not healthy, which a
/// probe for readiness does not mean.
const SLOW_START: u32 = 60;

/// The engine's health check: the command of the first probe that has one.
#[must_use]
pub(super) fn asked_inside(probes: &Probes) -> Option<HealthConfig> {
    let Probes {
        startup,
        readiness,
        liveness,
    } = probes;
    let mut all = [liveness, readiness, startup].into_iter().flatten();
    let (probe, command) = all.find_map(|probe| match &probe.check {
        Check::Exec { command } => Some((probe, command)),
        Check::Http { .. } | Check::Tcp { .. } => None,
    })?;
    let startup = startup.as_ref().map_or(SLOW_START, span);
    let test = std::iter::once("CMD".to_owned()).chain(command.iter().cloned());
    Some(HealthConfig {
        test: Some(test.collect()),
        interval: Some(i64::from(probe.period.max(1)) * SECOND),
        timeout: Some(i64::from(probe.timeout.max(1)) * SECOND),
        retries: Some(i64::from(probe.failure_threshold.max(1))),
        start_period: Some(i64::from(startup.max(probe.initial_delay)) * SECOND),
        ..HealthConfig::default()
    })
}

fn span(probe: &Probe) -> u32 {
    probe.initial_delay + probe.period.max(1) * probe.failure_threshold
}

/// All probes, as a container's label keeps them; `None` when there are none.
#[must_use]
pub(super) fn as_label(probes: &Probes) -> Option<String> {
    // Plain data of this kind always has a JSON form.
    (*probes != Probes::default())
        .then(|| serde_json::to_string(probes).ok())
        .flatten()
}

/// The probes of a container, by its labels.
pub(super) fn of_labels(labels: &Labels) -> Probes {
    let probes = labels.get(PROBES);
    probes
        .and_then(|probes| serde_json::from_str(probes).ok())
        .unwrap_or_default()
}

/// The probes that the operator asks; `None` when there are none.
#[must_use]
pub(super) fn asked_from_outside(probes: &Probes) -> Option<Probes> {
    let outside = |probe: &Option<Probe>| {
        probe
            .clone()
            .filter(|probe| !matches!(probe.check, Check::Exec { .. }))
    };
    let asked = Probes {
        startup: outside(&probes.startup),
        readiness: outside(&probes.readiness),
        liveness: outside(&probes.liveness),
    };
    (asked != Probes::default()).then_some(asked)
}
