//! The few calls to the engine of a manager, with errors that say what to do.

use std::collections::{BTreeSet, HashMap};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ConfigSpec, NetworkCreateRequest, Node, NodeSpecAvailabilityEnum, NodeState, SecretSpec,
    Service, ServiceSpec, Task,
};
use bollard::query_parameters::{
    ListConfigsOptionsBuilder, ListNodesOptions, ListSecretsOptionsBuilder,
    ListServicesOptionsBuilder, ListTasksOptions, UpdateServiceOptionsBuilder,
};

use super::health;
use super::labels::{INSTALLATION, Labels};
use crate::platform::PlatformError;

/// The engine itself touches a service during a roll; each time the change is made anew on what it has left.
const ATTEMPTS: u32 = 10;

/// A config or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) labels: Labels,
    /// Empty for a secret: nobody can read it back.
    pub(super) content: String,
}

/// The engine of a manager.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    pub(super) installation: String,
}

impl Engine {
    fn mine(&self) -> HashMap<&str, Vec<String>> {
        HashMap::from([(
            "label",
            vec![format!("{INSTALLATION}={}", self.installation)],
        )])
    }

    /// The services of this installation.
    pub(super) async fn services(&self) -> Result<Vec<Service>, PlatformError> {
        let options = ListServicesOptionsBuilder::default()
            .filters(&self.mine())
            .build();
        let found = self.docker.list_services(Some(options)).await;
        found.map_err(failed("list", "services"))
    }

    /// The service of that name, whoever made it.
    pub(super) async fn service(&self, name: &str) -> Result<Option<Service>, PlatformError> {
        optional(self.docker.inspect_service(name, None).await)
            .map_err(failed("read service", name))
    }

    /// The tasks of all services.
    pub(super) async fn tasks(&self) -> Result<Vec<Task>, PlatformError> {
        let found = self.docker.list_tasks(None::<ListTasksOptions>).await;
        found.map_err(failed("list", "tasks"))
    }

    pub(super) async fn nodes(&self) -> Result<Vec<Node>, PlatformError> {
        let found = self.docker.list_nodes(None::<ListNodesOptions>).await;
        found.map_err(failed("list", "nodes"))
    }

    pub(super) async fn create(&self, spec: ServiceSpec) -> Result<(), PlatformError> {
        let name = spec.name.clone().unwrap_or_default();
        match self.docker.create_service(spec, None).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(failed("create service", &name)(error)),
        }
    }

    /// Makes a service what `change` makes of it.
    pub(super) async fn update(
        &self,
        name: &str,
        change: impl Fn(ServiceSpec) -> ServiceSpec,
    ) -> Result<(), PlatformError> {
        let mut attempt = 1;
        loop {
            let Some(service) = self.service(name).await? else {
                return Ok(());
            };
            let version = service
                .version
                .and_then(|version| version.index)
                .unwrap_or(0);
            let options = UpdateServiceOptionsBuilder::default()
                .version(i32::try_from(version).unwrap_or(i32::MAX))
                .build();
            let spec = change(with_health_check(service.spec.unwrap_or_default()));
            match self.docker.update_service(name, spec, options, None).await {
                Ok(_) => return Ok(()),
                Err(error) if attempt < ATTEMPTS && is_out_of_sequence(&error) => attempt += 1,
                Err(error) => return Err(failed("update service", name)(error)),
            }
        }
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), PlatformError> {
        optional(self.docker.delete_service(name).await)
            .map(drop)
            .map_err(failed("remove service", name))
    }

    /// The overlay network, made if need be so that containers beside services can join it.
    pub(super) async fn ensure_network(&self, name: &str) -> Result<(), PlatformError> {
        if self.has_network(name).await? {
            return Ok(());
        }
        let wanted = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("overlay".to_owned()),
            attachable: Some(true),
            labels: Some(HashMap::from([(
                INSTALLATION.to_owned(),
                self.installation.clone(),
            )])),
            ..NetworkCreateRequest::default()
        };
        match self.docker.create_network(wanted).await {
            Ok(_) => Ok(()),
            // Somebody else was quicker.
            Err(_) if self.has_network(name).await? => Ok(()),
            Err(error) => Err(failed("create network", name)(error)),
        }
    }

    async fn has_network(&self, name: &str) -> Result<bool, PlatformError> {
        let found = optional(self.docker.inspect_network(name, None).await)
            .map_err(failed("read network", name))?;
        match found {
            None => Ok(false),
            Some(network) if network.scope.as_deref() == Some("swarm") => Ok(true),
            Some(_) => Err(PlatformError::Failed {
                what: format!("use the network {name}"),
                why: "it is not one of the Swarm; name an overlay network with --network"
                    .to_owned(),
            }),
        }
    }

    pub(super) async fn configs(&self) -> Result<Vec<Stored>, PlatformError> {
        let options = ListConfigsOptionsBuilder::default()
            .filters(&self.mine())
            .build();
        let found = self.docker.list_configs(Some(options)).await;
        let found = found.map_err(failed("list", "configs"))?;
        let stored = found.into_iter().filter_map(|config| {
            let spec = config.spec?;
            Some(Stored {
                id: config.id?,
                name: spec.name?,
                labels: spec.labels.unwrap_or_default(),
                content: decoded(&spec.data.unwrap_or_default()),
            })
        });
        Ok(stored.collect())
    }

    pub(super) async fn secrets(&self) -> Result<Vec<Stored>, PlatformError> {
        let options = ListSecretsOptionsBuilder::default()
            .filters(&self.mine())
            .build();
        let found = self.docker.list_secrets(Some(options)).await;
        let found = found.map_err(failed("list", "secrets"))?;
        let stored = found.into_iter().filter_map(|secret| {
            let spec = secret.spec?;
            Some(Stored {
                id: secret.id?,
                name: spec.name?,
                labels: spec.labels.unwrap_or_default(),
                content: String::new(),
            })
        });
        Ok(stored.collect())
    }

    /// Creates a config unless it exists.
    pub(super) async fn create_config(
        &self,
        name: &str,
        labels: Labels,
        content: &str,
    ) -> Result<(), PlatformError> {
        let spec = ConfigSpec {
            name: Some(name.to_owned()),
            labels: Some(labels),
            data: Some(encoded(content)),
            ..ConfigSpec::default()
        };
        match self.docker.create_config(spec).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(failed("create config", name)(error)),
        }
    }

    /// Creates a secret unless it exists.
    pub(super) async fn create_secret(
        &self,
        name: &str,
        labels: Labels,
        content: &str,
    ) -> Result<(), PlatformError> {
        let spec = SecretSpec {
            name: Some(name.to_owned()),
            labels: Some(labels),
            data: Some(encoded(content)),
            ..SecretSpec::default()
        };
        match self.docker.create_secret(spec).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(failed("create secret", name)(error)),
        }
    }

    /// Removes a config that nobody uses; one that is in use stays.
    pub(super) async fn remove_config(&self, config: &Stored) -> Result<(), PlatformError> {
        unless_in_use(self.docker.delete_config(&config.id).await)
            .map_err(failed("remove config", &config.name))
    }

    /// Removes a secret that nobody uses; one that is in use stays.
    pub(super) async fn remove_secret(&self, secret: &Stored) -> Result<(), PlatformError> {
        unless_in_use(self.docker.delete_secret(&secret.id).await)
            .map_err(failed("remove secret", &secret.name))
    }
}

/// Engines write `Healthcheck`, which the client does not read as its own `HealthCheck`: without this, a service that is
/// sent back lacks it, and all its containers are replaced.
fn with_health_check(mut spec: ServiceSpec) -> ServiceSpec {
    let task = spec.task_template.as_mut();
    if let Some(container) = task.and_then(|task| task.container_spec.as_mut())
        && container.health_check.is_none()
    {
        let labels = container.labels.clone().unwrap_or_default();
        container.health_check = health::asked_inside(&health::of_labels(&labels));
    }
    spec
}

/// Hosts that new tasks may be put on.
pub(super) fn is_usable(node: &Node) -> bool {
    let active = node.spec.as_ref().and_then(|spec| spec.availability)
        == Some(NodeSpecAvailabilityEnum::ACTIVE);
    active && node_state(node) == Some(NodeState::READY)
}

/// Hosts whose tasks cannot be known about.
pub(super) fn down(nodes: &[Node]) -> BTreeSet<String> {
    let down = nodes
        .iter()
        .filter(|node| node_state(node) == Some(NodeState::DOWN));
    down.filter_map(|node| node.id.clone()).collect()
}

fn node_state(node: &Node) -> Option<NodeState> {
    node.status.as_ref()?.state
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The engine answers 400 with the services that use it.
fn unless_in_use(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if matches!(status(&error), Some(400 | 404)) => Ok(()),
        other => other,
    }
}

fn is_out_of_sequence(error: &Error) -> bool {
    error.to_string().contains("out of sequence")
}

pub(super) fn failed(verb: &str, what: &str) -> impl Fn(Error) -> PlatformError + use<> {
    let what = format!("{verb} {what}");
    move |error| PlatformError::Failed {
        what: what.clone(),
        why: match &error {
            Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
            other => other.to_string(),
        },
    }
}

/// Docker takes and gives contents as base64.
fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn decoded(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}
