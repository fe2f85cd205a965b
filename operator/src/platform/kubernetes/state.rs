//! What the objects of Kubernetes say about a workload: a pure translation back.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use super::labels::TEMPLATE;
use crate::platform::{InstanceState, Owner, Phase, WorkloadId, WorkloadState};

/// A container that was restarted as often as this does not come up by itself. Kubernetes waits minutes by then.
const HOPELESS_RESTARTS: i32 = 5;

/// Why a container waits, where waiting longer does not help.
const HOPELESS: [&str; 6] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// What is asked for, as it stands in the StatefulSet or Deployment.
pub(super) struct Asked {
    /// Number of pods.
    pub(super) replicas: u16,
    /// Mark of the pod template.
    pub(super) template: Option<String>,
    /// Whether each pod is itself.
    pub(super) stateful: bool,
    /// Service by which pods have names.
    pub(super) service: Option<String>,
    /// Whether a newer template waits.
    pub(super) held_back: bool,
}

/// A workload's state by its pods.
pub(super) fn state(id: &WorkloadId, owner: Owner, asked: &Asked, pods: Vec<Pod>) -> WorkloadState {
    let mut pods: Vec<Pod> = pods.into_iter().filter(is_alive).collect();
    pods.sort_by_key(|pod| (ordinal(&pod.name_any()), pod.name_any()));
    let instances = pods.iter().enumerate().map(|(index, pod)| {
        let position = u16::try_from(index).unwrap_or(u16::MAX);
        let ordinal = asked.stateful.then(|| ordinal(&pod.name_any())).flatten();
        instance(id, asked, pod, ordinal.unwrap_or(position))
    });
    WorkloadState {
        id: id.clone(),
        owner,
        wanted: asked.replicas,
        instances: instances.collect(),
        held_back: asked.held_back,
    }
}

/// Pods that were evicted or have ended stay listed for a while.
fn is_alive(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Failed" | "Succeeded"))
}

fn ordinal(name: &str) -> Option<u16> {
    name.rsplit_once('-')?.1.parse().ok()
}

fn instance(id: &WorkloadId, asked: &Asked, pod: &Pod, ordinal: u16) -> InstanceState {
    let name = pod.name_any();
    let status = pod.status.clone().unwrap_or_default();
    let going = pod.metadata.deletion_timestamp.is_some();
    let containers = status.container_statuses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let trouble = containers.iter().find_map(trouble);
    let unscheduled = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let mark = pod.annotations().get(TEMPLATE);
    let stable = asked
        .service
        .as_ref()
        .map(|service| host(id, ordinal, service));
    let restarts: u32 = containers
        .iter()
        .map(|c| u32::try_from(c.restart_count).unwrap_or(0))
        .sum();
    InstanceState {
        ordinal,
        host: status.pod_ip.or(stable).unwrap_or_default(),
        phase: match (going, status.phase.as_deref(), &trouble) {
            (true, _, _) => Phase::Stopping,
            (_, _, Some(_)) => Phase::BackOff,
            (_, Some("Running"), _) => Phase::Running,
            _ => Phase::Pending,
        },
        ready: ready && !going,
        current: asked.template.is_some() && mark == asked.template.as_ref(),
        restarts,
        stuck: trouble.as_ref().is_some_and(|trouble| trouble.hopeless),
        process: pod.uid().map(|uid| run(&uid, restarts)),
        message: trouble
            .map(|trouble| trouble.message)
            .or_else(|| unscheduled.and_then(|c| c.message.clone())),
        name,
    }
}

/// A pod whose program was started again is the same pod in another run.
fn run(uid: &str, restarts: u32) -> String {
    if restarts == 0 {
        uid.to_owned()
    } else {
        format!("{uid}/{restarts}")
    }
}

/// The pod of a run.
pub(super) fn uid_of(run: &str) -> &str {
    run.split_once('/').map_or(run, |(uid, _)| uid)
}

/// The stable name of an instance.
pub(super) fn host(id: &WorkloadId, ordinal: u16, service: &str) -> String {
    format!("{}.{service}.{}.svc", id.instance(ordinal), id.namespace)
}

struct Trouble {
    hopeless: bool,
    message: String,
}

fn trouble(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let crashing = reason == "CrashLoopBackOff";
    if !crashing && !HOPELESS.contains(&reason) {
        return None;
    }
    let ended = container
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    let last_words = ended
        .and_then(|ended| ended.message.as_deref())
        .map(str::trim);
    let message = last_words
        .or(waiting.message.as_deref())
        .unwrap_or_default();
    Some(Trouble {
        hopeless: !crashing || container.restart_count >= HOPELESS_RESTARTS,
        message: format!("{reason}: {message}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn asked() -> Asked {
        Asked {
            replicas: 2,
            template: Some("new".into()),
            stateful: true,
            service: Some("line".into()),
            held_back: false,
        }
    }

    #[test]
    fn pods_are_told_by_their_state() {
        let owner = Owner {
            kind: "NatsShard".into(),
            name: "line".into(),
            uid: "u".into(),
        };
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let pods = vec![
            pod(
                json!({"metadata": {"name": "line-10", "annotations": {TEMPLATE: "new"}},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": ready}}),
            ),
            pod(
                json!({"metadata": {"name": "line-2", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"phase": "Running", "conditions": ready}}),
            ),
            pod(json!({"metadata": {"name": "line-3"}, "status": {"phase": "Failed"}})),
            pod(
                json!({"metadata": {"name": "line-4"}, "status": {"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "status": "False", "message": "0/5 nodes are available"}]}}),
            ),
            pod(
                json!({"metadata": {"name": "line-5"}, "status": {"phase": "Running", "containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 7,
                 "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                 "lastState": {"terminated": {"exitCode": 1, "message": "no such file\n"}}}]}}),
            ),
        ];
        let found = state(&WorkloadId::new("ns", "line"), owner, &asked(), pods);
        let mut said = Vec::new();
        for i in &found.instances {
            let message = i.message.as_deref().unwrap_or_default();
            said.push((i.ordinal, i.phase, i.ready, i.current, i.stuck, message));
        }
        let crashing = "CrashLoopBackOff: no such file";
        let expected = [
            (2, Phase::Stopping, false, false, false, ""),
            (
                4,
                Phase::Pending,
                false,
                false,
                false,
                "0/5 nodes are available",
            ),
            (5, Phase::BackOff, false, false, true, crashing),
            (10, Phase::Running, true, true, false, ""),
        ];
        assert_eq!(said, expected);
    }
}
