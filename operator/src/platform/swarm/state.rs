//! What the services and tasks of a Swarm say about a workload: a pure translation back.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{Service, Task, TaskState};

use super::health;
use super::labels::{self, Labels};
use crate::platform::{InstanceState, Phase, WorkloadId, WorkloadState};

/// Failures in a row, with the same description, after which somebody must help.
const STUCK_AFTER: usize = 3;

/// What an engine says where another try does not help.
const HOPELESS: [&str; 3] = [
    "executable file not found",
    "No such image",
    "permission denied",
];

/// What is known beside services and tasks.
pub(super) struct Around<'a> {
    /// Ids of hosts that cannot be reached.
    pub(super) down: &'a BTreeSet<String>,
    /// What the operator's own questions to a task say; `None` where it was not asked yet.
    pub(super) answers: &'a BTreeMap<String, Answer>,
}

/// What the operator's own questions to a task say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether it may be used.
    pub(super) ready: bool,
    /// Why it must be restarted.
    pub(super) failure: Option<String>,
}

/// Labels of a service.
pub(super) fn service_labels(service: &Service) -> Labels {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.labels.clone())
        .unwrap_or_default()
}

/// Labels of a task's container.
pub(super) fn task_labels(task: &Task) -> Labels {
    let container = task
        .spec
        .as_ref()
        .and_then(|spec| spec.container_spec.as_ref());
    container
        .and_then(|container| container.labels.clone())
        .unwrap_or_default()
}

/// A workload's state; `None` where it has no service.
pub(super) fn state(
    id: &WorkloadId,
    services: &[Service],
    tasks: &[Task],
    around: &Around<'_>,
) -> Option<WorkloadState> {
    let services: Vec<&Service> = services
        .iter()
        .filter(|service| labels::workload_of(&service_labels(service)).as_ref() == Some(id))
        .collect();
    let first = services.first().map(|service| service_labels(service))?;
    let names: BTreeMap<&str, &str> = services
        .iter()
        .filter_map(|service| {
            let name = service.spec.as_ref()?.name.as_deref()?;
            Some((service.id.as_deref()?, name))
        })
        .collect();
    let template = first.get(labels::TEMPLATE);
    let mut slots: BTreeMap<u16, Vec<&Task>> = BTreeMap::new();
    for task in tasks
        .iter()
        .filter(|task| labels::workload_of(&task_labels(task)).as_ref() == Some(id))
    {
        slots.entry(ordinal(task)).or_default().push(task);
    }
    let mut instances = Vec::new();
    for (ordinal, tasks) in slots {
        let service = tasks
            .iter()
            .find_map(|task| names.get(task.service_id.as_deref()?).copied());
        let slot = Slot {
            ordinal,
            identity: task_labels(tasks[0]).contains_key(labels::ORDINAL),
            service,
            template,
            around,
            id,
        };
        instances.extend(slot.instances(tasks));
    }
    Some(WorkloadState {
        id: id.clone(),
        owner: labels::owner_of(&first)?,
        wanted: labels::number(&first, labels::REPLICAS).unwrap_or_default(),
        instances,
        held_back: false,
    })
}

/// Tasks of a workload that are alive, whether its services still exist or not.
pub(super) fn anything_left(id: &WorkloadId, tasks: &[Task], down: &BTreeSet<String>) -> bool {
    let mut of_workload = tasks
        .iter()
        .filter(|task| labels::workload_of(&task_labels(task)).as_ref() == Some(id));
    of_workload.any(|task| is_alive(task, down))
}

fn ordinal(task: &Task) -> u16 {
    labels::number(&task_labels(task), labels::ORDINAL).unwrap_or_else(|| {
        // Slots begin with 1.
        let slot = task.slot.unwrap_or(1);
        u16::try_from(slot.saturating_sub(1)).unwrap_or(u16::MAX)
    })
}

fn task_state(task: &Task) -> TaskState {
    let status = task.status.as_ref();
    status
        .and_then(|status| status.state)
        .unwrap_or(TaskState::NEW)
}

fn has_ended(state: TaskState) -> bool {
    use TaskState as S;
    matches!(
        state,
        S::COMPLETE | S::SHUTDOWN | S::FAILED | S::REJECTED | S::REMOVE | S::ORPHANED
    )
}

/// Whether it ended without having been asked to.
fn has_failed(task: &Task) -> bool {
    use TaskState as S;
    matches!(
        task_state(task),
        S::COMPLETE | S::FAILED | S::REJECTED | S::ORPHANED
    )
}

fn is_asked_to_end(task: &Task) -> bool {
    task.desired_state.is_some_and(has_ended)
}

/// A task on a host that cannot be reached says for ever what it said last.
fn is_alive(task: &Task, down: &BTreeSet<String>) -> bool {
    let lost = task
        .node_id
        .as_ref()
        .is_some_and(|node| down.contains(node));
    let over = has_ended(task_state(task)) || (lost && is_asked_to_end(task));
    !over
}

/// What one instance consists of: the task that runs, those on their way out, those that have ended.
struct Slot<'a> {
    ordinal: u16,
    identity: bool,
    service: Option<&'a str>,
    template: Option<&'a String>,
    around: &'a Around<'a>,
    id: &'a WorkloadId,
}

impl Slot<'_> {
    fn instances(&self, mut tasks: Vec<&Task>) -> Vec<InstanceState> {
        tasks.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
        let (alive, ended): (Vec<&Task>, Vec<&Task>) = tasks
            .into_iter()
            .partition(|task| is_alive(task, self.around.down));
        let failed: Vec<&Task> = ended
            .iter()
            .copied()
            .filter(|task| has_failed(task))
            .collect();
        let mut instances: Vec<InstanceState> = alive
            .iter()
            .map(|task| self.instance(task, &failed))
            .collect();
        // Nothing runs and nothing is about to: a roll that was called off because this failed.
        if instances.is_empty()
            && self.service.is_some()
            && let Some(last) = ended.last().filter(|task| has_failed(task))
        {
            instances.push(self.instance(last, &failed));
        }
        instances
    }

    fn instance(&self, task: &Task, failed: &[&Task]) -> InstanceState {
        let state = task_state(task);
        let id = task.id.clone().unwrap_or_default();
        let going = is_asked_to_end(task) && !has_ended(state);
        let current = self.is_current(task);
        let recent = self.failures_of_this(failed);
        let up = state == TaskState::RUNNING && !going;
        let asked = health::asked_from_outside(&health::of_labels(&task_labels(task))).is_some();
        let answer = self.around.answers.get(&id);
        let lost = task
            .node_id
            .as_ref()
            .is_some_and(|node| self.around.down.contains(node));
        let ready = up && !lost && (!asked || answer.is_some_and(|answer| answer.ready));
        let name = self.name(task, &id);
        InstanceState {
            ordinal: self.ordinal,
            host: self.host(task, &id),
            phase: if going {
                Phase::Stopping
            } else if state == TaskState::RUNNING {
                Phase::Running
            } else if recent > 0 {
                Phase::BackOff
            } else {
                Phase::Pending
            },
            ready,
            current,
            restarts: u32::try_from(failed.len()).unwrap_or(u32::MAX),
            stuck: !ready
                && !going
                && current
                && (recent >= STUCK_AFTER || failed.iter().any(|task| self.is_hopeless(task))),
            process: Some(id),
            message: if ready || going {
                None
            } else if lost {
                Some("its host cannot be reached".to_owned())
            } else {
                answer
                    .and_then(|answer| answer.failure.clone())
                    .or_else(|| error(task))
                    .or_else(|| {
                        let last = failed.last().filter(|_| !up)?;
                        Some(format!("{}; see: docker service logs {name}", error(last)?))
                    })
            },
            name,
        }
    }

    /// Failures of what is asked for now: a changed description deserves a fresh try.
    fn failures_of_this(&self, failed: &[&Task]) -> usize {
        failed.iter().filter(|task| self.is_current(task)).count()
    }

    /// What never runs, however often it is tried.
    fn is_hopeless(&self, task: &Task) -> bool {
        self.is_current(task)
            && error(task).is_some_and(|error| HOPELESS.iter().any(|sign| error.contains(sign)))
    }

    fn is_current(&self, task: &Task) -> bool {
        self.template.is_some() && task_labels(task).get(labels::TEMPLATE) == self.template
    }

    fn name(&self, task: &Task, id: &str) -> String {
        if self.identity {
            self.id.instance(self.ordinal)
        } else {
            self.host(task, id)
        }
    }

    /// The container's own name, which no other task ever has.
    fn host(&self, task: &Task, id: &str) -> String {
        let service = self.service.unwrap_or(&self.id.name);
        format!("{service}.{}.{id}", task.slot.unwrap_or(1))
    }
}

fn error(task: &Task) -> Option<String> {
    let status = task.status.as_ref()?;
    let error = status.err.clone().filter(|error| !error.is_empty());
    let quiet = has_ended(task_state(task))
        .then(|| status.message.clone())
        .flatten();
    error.or(quiet)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(id: &str, slot: u16, template: &str, state: &str, desired: &str, node: &str) -> Task {
        let labels =
            json!({labels::NAMESPACE: "ns", labels::WORKLOAD: "w", labels::TEMPLATE: template});
        serde_json::from_value(json!({
            "ID": id, "Slot": slot, "ServiceID": "s", "NodeID": node, "CreatedAt": id,
            "Spec": {"ContainerSpec": {"Labels": labels}},
            "Status": {"State": state, "Err": if state == "failed" { "exit 1" } else { "" }},
            "DesiredState": desired,
        }))
        .unwrap()
    }

    fn of(tasks: &[Task]) -> Vec<(u16, Phase, bool, bool, bool, u32)> {
        let labels = json!({
            labels::NAMESPACE: "ns", labels::WORKLOAD: "w", labels::TEMPLATE: "new", labels::REPLICAS: "2",
            "io.openfactory.fanout.owner.kind": "K", "io.openfactory.fanout.owner.name": "n",
            "io.openfactory.fanout.owner.uid": "u",
        });
        let service = json!({"ID": "s", "Spec": {"Name": "w", "Labels": labels}});
        let service: Service = serde_json::from_value(service).unwrap();
        let around = Around {
            down: &BTreeSet::from(["lost".to_owned()]),
            answers: &BTreeMap::new(),
        };
        let id = WorkloadId::new("ns", "w");
        let found = state(&id, &[service], tasks, &around).unwrap();
        let told = found
            .instances
            .into_iter()
            .map(|i| (i.ordinal, i.phase, i.ready, i.current, i.stuck, i.restarts));
        told.collect()
    }

    #[test]
    fn tasks_are_told_by_their_state() {
        let rolling = [
            task("1", 1, "old", "running", "shutdown", "a"),
            task("2", 1, "new", "preparing", "ready", "a"),
            task("3", 2, "old", "running", "running", "b"),
        ];
        assert_eq!(
            of(&rolling),
            [
                (0, Phase::Stopping, false, false, false, 0),
                (0, Phase::Pending, false, true, false, 0),
                (1, Phase::Running, true, false, false, 0),
            ]
        );
        let failing = [
            task("1", 1, "new", "failed", "shutdown", "a"),
            task("2", 1, "new", "failed", "shutdown", "a"),
            task("3", 1, "new", "failed", "shutdown", "a"),
            task("4", 1, "new", "ready", "ready", "a"),
        ];
        assert_eq!(of(&failing), [(0, Phase::BackOff, false, true, true, 3)]);
        // A roll that was called off leaves nothing but what failed.
        assert_eq!(
            of(&failing[..1]),
            [(0, Phase::BackOff, false, true, false, 1)]
        );
    }

    #[test]
    fn what_a_lost_host_said_last_is_not_believed() {
        let moved = [
            task("1", 1, "new", "running", "shutdown", "lost"),
            task("2", 1, "new", "running", "running", "a"),
        ];
        assert_eq!(of(&moved), [(0, Phase::Running, true, true, false, 0)]);
        let not_yet = [task("1", 1, "new", "running", "running", "lost")];
        assert_eq!(of(&not_yet), [(0, Phase::Running, false, true, false, 0)]);
    }
}
