//! Plain Deployments and StatefulSets: translated, applied, observed.

use jiff::Timestamp;
use ofa_crds::api::Condition;

use super::conditions::{Outcome, merge, of_instances};
use crate::plain::{Plain, PlainStatus, Service, workload};
use crate::platform::{DeploymentPlatform, Workload, WorkloadState};

/// Brings a plain manifest about.
pub async fn reconcile(
    plain: Plain<'_>,
    services: &[&Service],
    platform: &dyn DeploymentPlatform,
) -> PlainStatus {
    let (generation, old) = match plain {
        Plain::Deployment(d) => (d.metadata.generation, d.status.as_ref()),
        Plain::StatefulSet(s) => (s.metadata.generation, s.status.as_ref()),
    };
    let old_conditions = old.map_or(&[][..], |status| &status.conditions);
    match workload(plain, services) {
        Ok(workload) => apply(&workload, platform, generation, old_conditions).await,
        Err(error) => {
            let outcome = Outcome::stalled("Invalid", error.to_string());
            status(&outcome, None, None, generation, old_conditions)
        }
    }
}

async fn apply(
    workload: &Workload,
    platform: &dyn DeploymentPlatform,
    generation: Option<i64>,
    old: &[Condition],
) -> PlainStatus {
    let state = match platform.ensure(workload).await {
        Ok(()) => platform.observe(&workload.id).await,
        Err(error) => Err(error),
    };
    match state {
        Ok(state) => {
            let found = state.as_ref().and_then(of_instances);
            let serves = state.as_ref().is_some_and(|state| state.ready() > 0);
            let outcome = found.unwrap_or_else(|| Outcome::ready("all instances are ready"));
            status(
                &outcome.serving(serves),
                state.as_ref(),
                Some(workload),
                generation,
                old,
            )
        }
        Err(error) => status(&error.into(), None, Some(workload), generation, old),
    }
}

fn status(
    outcome: &Outcome,
    state: Option<&WorkloadState>,
    workload: Option<&Workload>,
    generation: Option<i64>,
    old: &[Condition],
) -> PlainStatus {
    let port = workload.and_then(|workload| workload.ports.first());
    let instances = state.map_or(&[][..], |state| &state.instances);
    let address =
        |host: &str| port.map_or_else(|| host.to_owned(), |port| format!("{host}:{}", port.port));
    PlainStatus {
        observed_generation: generation,
        conditions: merge(old, outcome, generation, Timestamp::now()),
        replicas: u16::try_from(instances.len()).unwrap_or(u16::MAX),
        ready_replicas: state.map_or(0, WorkloadState::ready),
        addresses: instances
            .iter()
            .map(|instance| address(&instance.host))
            .collect(),
    }
}
