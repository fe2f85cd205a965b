//! What a service says about how it was made, and the few ways in which one is changed.

use bollard::models::{
    Service, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated, TaskSpec, TaskSpecPlacement,
};

use super::labels;

/// The constraint that puts an instance on a host.
const ON_HOST: &str = "node.id==";

/// Names of the configs and secrets of a service.
pub(super) fn files_of(service: &Service) -> Vec<String> {
    let task = service
        .spec
        .as_ref()
        .and_then(|spec| spec.task_template.as_ref());
    let Some(container) = task.and_then(|task| task.container_spec.as_ref()) else {
        return Vec::new();
    };
    let configs = container.configs.iter().flatten();
    let secrets = container.secrets.iter().flatten();
    configs
        .filter_map(|config| config.config_name.clone())
        .chain(secrets.filter_map(|secret| secret.secret_name.clone()))
        .collect()
}

fn mark<'a>(spec: Option<&'a ServiceSpec>, label: &str) -> Option<&'a String> {
    spec?.labels.as_ref()?.get(label)
}

fn container_mark(spec: Option<&ServiceSpec>) -> Option<&String> {
    let container = spec?.task_template.as_ref()?.container_spec.as_ref()?;
    container.labels.as_ref()?.get(labels::TEMPLATE)
}

/// Whether containers are made from this description, and nobody has changed them since.
pub(super) fn is_as_described(found: &Service, wanted: &ServiceSpec) -> bool {
    let found = found.spec.as_ref();
    container_mark(found) == container_mark(Some(wanted))
        && seen_by_users(found) == seen_by_users(Some(wanted))
}

/// What somebody may have changed by hand, among what the engine gives back as it was given.
fn seen_by_users(spec: Option<&ServiceSpec>) -> Option<[Option<Vec<String>>; 4]> {
    let container = spec?.task_template.as_ref()?.container_spec.as_ref()?;
    let not_empty = |words: &Option<Vec<String>>| words.clone().filter(|words| !words.is_empty());
    Some([
        container.image.clone().map(|image| vec![image]),
        not_empty(&container.command),
        not_empty(&container.args),
        not_empty(&container.env),
    ])
}

pub(super) fn has_marks_of(found: &Service, wanted: &ServiceSpec) -> bool {
    let found = found.spec.as_ref();
    [labels::TEMPLATE, labels::REPLICAS]
        .iter()
        .all(|label| mark(found, label) == mark(Some(wanted), label))
}

pub(super) fn with_marks_of(found: ServiceSpec, wanted: &ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        labels: wanted.labels.clone(),
        ..found
    }
}

fn replicas(spec: &ServiceSpec) -> Option<i64> {
    spec.mode.as_ref()?.replicated.as_ref()?.replicas
}

fn most_on_a_host(spec: &ServiceSpec) -> i64 {
    let task = spec.task_template.as_ref();
    let placement = task.and_then(|task| task.placement.as_ref());
    placement
        .and_then(|placement| placement.max_replicas)
        .unwrap_or(0)
}

/// Whether as many containers lie as they should.
pub(super) fn has_shape_of(found: &Service, wanted: &ServiceSpec) -> bool {
    found.spec.as_ref().is_some_and(|spec| {
        replicas(spec) == replicas(wanted) && most_on_a_host(spec) == most_on_a_host(wanted)
    }) && has_marks_of(found, wanted)
}

pub(super) fn with_shape_of(found: ServiceSpec, wanted: &ServiceSpec) -> ServiceSpec {
    let placement = wanted
        .task_template
        .as_ref()
        .and_then(|task| task.placement.clone());
    let task = found
        .task_template
        .map(|task| TaskSpec { placement, ..task });
    ServiceSpec {
        labels: wanted.labels.clone(),
        mode: Some(ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated {
                replicas: replicas(wanted),
            }),
            ..ServiceSpecMode::default()
        }),
        task_template: task,
        ..found
    }
}

/// The host that an instance was put on.
pub(super) fn host_of(service: &Service) -> Option<&str> {
    let task = service.spec.as_ref()?.task_template.as_ref()?;
    let constraints = task.placement.as_ref()?.constraints.as_ref()?;
    constraints
        .iter()
        .find_map(|constraint| constraint.strip_prefix(ON_HOST))
}

pub(super) fn with_host(spec: ServiceSpec, host: &str) -> ServiceSpec {
    let task = spec.task_template.map(|task| TaskSpec {
        placement: Some(TaskSpecPlacement {
            constraints: Some(vec![format!("{ON_HOST}{host}")]),
            ..task.placement.unwrap_or_default()
        }),
        ..task
    });
    ServiceSpec {
        task_template: task,
        ..spec
    }
}

/// The same container once more.
pub(super) fn started_anew(spec: ServiceSpec) -> ServiceSpec {
    let task = spec.task_template.map(|task| TaskSpec {
        force_update: Some(task.force_update.unwrap_or(0) + 1),
        ..task
    });
    ServiceSpec {
        task_template: task,
        ..spec
    }
}
