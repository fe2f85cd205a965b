//! Brings services to what is asked for, with as few changes as possible.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::Service;
use ofa_crds::api::SpreadMode;

use super::SwarmPlatform;
use super::check::{HOSTNAME, identities};
use super::engine;
use super::files::{Secrets, secret_names};
use super::labels;
use super::placement::{Asked, Host, place};
use super::service::{
    has_marks_of, has_shape_of, host_of, is_as_described, started_anew, with_host, with_marks_of,
    with_shape_of,
};
use super::spec::{Around, Translation, translate};
use super::state::{anything_left, service_labels};
use crate::platform::plan::{Action, At, InstanceView, View, plan};
use crate::platform::{
    InstanceState, Phase, PlatformError, SecretId, Workload, WorkloadId, WorkloadKind,
    WorkloadState,
};

impl SwarmPlatform {
    pub(super) async fn apply(&self, workload: &Workload) -> Result<(), PlatformError> {
        let wanted = self.translated(workload).await?;
        let found = self.found(workload, &wanted).await?;
        let hosts = self.hosts(workload).await?;
        let placed = placed(workload, &found, &hosts)?;
        self.engine.ensure_network(&self.network).await?;
        let all = self.engine.services().await?;
        self.remove_others(&workload.id, &wanted, &all).await?;
        if identities(workload) {
            self.apply_instances(workload, &wanted, &found, &placed)
                .await?;
        } else {
            self.apply_alike(workload, &wanted, found.get(&workload.id.name))
                .await?;
        }
        self.remove_unused_files(&workload.id).await
    }

    async fn translated(&self, workload: &Workload) -> Result<Translation, PlatformError> {
        let mut secrets = Secrets::new();
        let names: BTreeSet<&str> = secret_names(workload).collect();
        for name in names {
            let id = SecretId::new(workload.id.namespace.as_str(), name);
            if let Some(data) = self.secrets.read(&id).await? {
                secrets.insert(name.to_owned(), data);
            }
        }
        let around = Around {
            installation: &self.engine.installation,
            network: &self.network,
            secrets: &secrets,
        };
        translate(workload, &around)
    }

    /// The workload's services that exist, by name; an error if one of these names is somebody else's.
    async fn found(
        &self,
        workload: &Workload,
        wanted: &Translation,
    ) -> Result<BTreeMap<String, Service>, PlatformError> {
        let mut found = BTreeMap::new();
        for name in wanted.services.iter().filter_map(|spec| spec.name.clone()) {
            let Some(service) = self.engine.service(&name).await? else {
                continue;
            };
            let labels = service_labels(&service);
            let conflict = |owner: String| PlatformError::NameConflict {
                id: workload.id.clone(),
                owner,
            };
            let mine = labels.get(labels::INSTALLATION) == Some(&self.engine.installation);
            if !mine {
                return Err(conflict(format!(
                    "somebody else (the service {name} is not of this operator)"
                )));
            }
            let other = labels::workload_of(&labels).filter(|id| *id != workload.id);
            if let Some(other) = other {
                return Err(conflict(format!("the workload {other}")));
            }
            let owner = labels::owner_of(&labels).filter(|owner| *owner != workload.owner);
            if let Some(owner) = owner {
                return Err(conflict(format!("{} {}", owner.kind, owner.name)));
            }
            found.insert(name, service);
        }
        Ok(found)
    }

    async fn hosts(&self, workload: &Workload) -> Result<Vec<Host>, PlatformError> {
        let key = &workload.spread.topology_key;
        let tasks = self.engine.tasks().await?;
        let nodes = self.engine.nodes().await?;
        let hosts = nodes
            .iter()
            .filter(|node| engine::is_usable(node))
            .filter_map(|node| {
                let id = node.id.clone()?;
                let labels = node.spec.as_ref().and_then(|spec| spec.labels.as_ref());
                let label = labels.and_then(|labels| labels.get(key)).cloned();
                let on_it = tasks
                    .iter()
                    .filter(|task| task.node_id.as_ref() == Some(&id));
                Some(Host {
                    domain: label
                        .filter(|_| key != HOSTNAME)
                        .unwrap_or_else(|| id.clone()),
                    load: on_it.count(),
                    id,
                })
            });
        Ok(hosts.collect())
    }

    /// Services of the workload that it does not consist of any more: too many instances, or of another form.
    async fn remove_others(
        &self,
        id: &WorkloadId,
        wanted: &Translation,
        all: &[Service],
    ) -> Result<(), PlatformError> {
        let names: BTreeSet<&String> = wanted
            .services
            .iter()
            .filter_map(|spec| spec.name.as_ref())
            .collect();
        for service in all {
            let mine = labels::workload_of(&service_labels(service)).as_ref() == Some(id);
            let name = service.spec.as_ref().and_then(|spec| spec.name.as_ref());
            if let Some(name) = name.filter(|name| mine && !names.contains(name)) {
                self.engine.remove(name).await?;
            }
        }
        Ok(())
    }

    /// One service whose tasks Swarm itself keeps, spreads and rolls.
    async fn apply_alike(
        &self,
        workload: &Workload,
        wanted: &Translation,
        found: Option<&Service>,
    ) -> Result<(), PlatformError> {
        let Some(spec) = wanted.services.first() else {
            return Ok(());
        };
        let Some(found) = found else {
            let spec = self.with_files(&workload.id, spec.clone(), wanted).await?;
            return self.engine.create(spec).await;
        };
        let name = &workload.id.name;
        if is_as_described(found, spec) {
            if !has_shape_of(found, spec) {
                self.engine
                    .update(name, |found| with_shape_of(found, spec))
                    .await?;
            }
            return Ok(());
        }
        let spec = self.with_files(&workload.id, spec.clone(), wanted).await?;
        self.engine.update(name, |_| spec.clone()).await
    }

    /// A service for each instance: those that are missing are created; one that is outdated is replaced when its turn
    /// has come, or when [`replace`](Self::replace) is called.
    async fn apply_instances(
        &self,
        workload: &Workload,
        wanted: &Translation,
        found: &BTreeMap<String, Service>,
        placed: &BTreeMap<u16, String>,
    ) -> Result<(), PlatformError> {
        for (ordinal, spec) in (0u16..).zip(&wanted.services) {
            let name = spec.name.clone().unwrap_or_default();
            let host = placed.get(&ordinal).map_or("", String::as_str);
            match found.get(&name) {
                None => {
                    let spec = with_host(spec.clone(), host);
                    let spec = self.with_files(&workload.id, spec, wanted).await?;
                    self.engine.create(spec).await?;
                }
                // Marked as outdated, or moved, with what it runs as it is.
                Some(service) if !has_marks_of(service, spec) || host_of(service) != Some(host) => {
                    self.engine
                        .update(&name, |found| with_host(with_marks_of(found, spec), host))
                        .await?;
                }
                Some(_) => {}
            }
        }
        match self.next_to_roll(workload).await? {
            Some(ordinal) => self.replace(&workload.id, ordinal, Some(workload)).await,
            None => Ok(()),
        }
    }

    /// The outdated instance whose turn it is: where the platform rolls, and one that serves nobody in any case.
    async fn next_to_roll(&self, workload: &Workload) -> Result<Option<u16>, PlatformError> {
        let states = self.states().await?;
        let Some(state) = states.into_iter().find(|state| state.id == workload.id) else {
            return Ok(None);
        };
        let stuck = state
            .instances
            .iter()
            .find(|instance| !instance.current && never_came_up(instance));
        if let Some(stuck) = stuck {
            return Ok(Some(stuck.ordinal));
        }
        let next = plan(&view(workload, &state))
            .into_iter()
            .find_map(|action| match action {
                Action::Stop(ordinal) => Some(ordinal),
                Action::Start(_) => None,
            });
        Ok(next)
    }

    /// Makes one instance from what is asked for, or anew from what it is if nothing else is known.
    pub(super) async fn replace(
        &self,
        id: &WorkloadId,
        ordinal: u16,
        asked: Option<&Workload>,
    ) -> Result<(), PlatformError> {
        let name = id.instance(ordinal);
        let missing = || PlatformError::NotFound(format!("instance {name}"));
        let service = self.engine.service(&name).await?.ok_or_else(missing)?;
        if labels::workload_of(&service_labels(&service)).as_ref() != Some(id) {
            return Err(missing());
        }
        let wanted = match asked {
            Some(workload) => Some(self.translated(workload).await?),
            None => None,
        };
        let spec = wanted
            .as_ref()
            .and_then(|wanted| wanted.services.get(usize::from(ordinal)));
        let (Some(wanted), Some(spec)) = (&wanted, spec) else {
            return self.engine.update(&name, started_anew).await;
        };
        if is_as_described(&service, spec) {
            return self.engine.update(&name, started_anew).await;
        }
        let host = host_of(&service).unwrap_or_default().to_owned();
        let spec = with_host(spec.clone(), &host);
        let spec = self.with_files(id, spec, wanted).await?;
        self.engine.update(&name, |_| spec.clone()).await
    }

    /// Removes all services of a workload; whether nothing of them is left.
    pub(super) async fn take_down(&self, id: &WorkloadId) -> Result<bool, PlatformError> {
        let mut gone = true;
        for service in self.engine.services().await? {
            let mine = labels::workload_of(&service_labels(&service)).as_ref() == Some(id);
            if let Some(name) = service.spec.and_then(|spec| spec.name).filter(|_| mine) {
                self.engine.remove(&name).await?;
                gone = false;
            }
        }
        let down = engine::down(&self.engine.nodes().await?);
        if !gone || anything_left(id, &self.engine.tasks().await?, &down) {
            return Ok(false);
        }
        self.remove_unused_files(id).await?;
        Ok(true)
    }
}

/// The host of every instance that has an identity; whether there are enough hosts in any case.
fn placed(
    workload: &Workload,
    found: &BTreeMap<String, Service>,
    hosts: &[Host],
) -> Result<BTreeMap<u16, String>, PlatformError> {
    let required = workload.spread.mode == SpreadMode::Required;
    let too_few = |hosts| PlatformError::TooFewHosts {
        id: workload.id.clone(),
        wanted: if required { workload.replicas } else { 1 },
        hosts,
    };
    if !identities(workload) {
        let enough = !required || hosts.len() >= usize::from(workload.replicas);
        return if enough {
            Ok(BTreeMap::new())
        } else {
            Err(too_few(hosts.len()))
        };
    }
    let asked = Asked {
        replicas: workload.replicas,
        required,
        bound: matches!(workload.kind, WorkloadKind::Stateful { data: Some(_) }),
    };
    let now = (0..workload.replicas).filter_map(|ordinal| {
        let service = found.get(&workload.id.instance(ordinal))?;
        Some((ordinal, host_of(service)?.to_owned()))
    });
    place(asked, &now.collect(), hosts).map_err(too_few)
}

fn view(workload: &Workload, state: &WorkloadState) -> View {
    let instances = state.instances.iter().map(|instance| InstanceView {
        ordinal: instance.ordinal,
        at: match instance.phase {
            Phase::Stopping => At::Stopping,
            Phase::Running => At::Running {
                ready: instance.ready,
                current: instance.current,
                restart: false,
            },
            Phase::Pending | Phase::BackOff => At::Waiting,
        },
    });
    View {
        replicas: workload.replicas,
        update: workload.update,
        instances: instances
            .filter(|instance| instance.ordinal < workload.replicas)
            .collect(),
    }
}

/// Whether an instance fails before it runs, so that nobody loses anything by its replacement.
fn never_came_up(instance: &InstanceState) -> bool {
    matches!(instance.phase, Phase::Pending | Phase::BackOff) && !instance.ready
}
