//! Keeps processes as they are asked for: looks, decides, acts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::addresses::Addresses;
use super::command;
use super::instance::{Live, Record, Stopping, now_ms};
use super::process;
use super::records::{Managed, instance_directory, workload_directory};
use super::secrets::SecretFiles;
use crate::platform::plan::{Action, At, InstanceView, View, plan};
use crate::platform::probe::{Prober, Target};
use crate::platform::{
    InstanceState, PlatformError, StopSignal, Workload, WorkloadId, WorkloadKind, WorkloadState,
};

/// All workloads of a state directory.
pub(super) struct Supervisor {
    pub(super) directory: PathBuf,
    pub(super) workloads: BTreeMap<WorkloadId, Managed>,
    pub(super) live: BTreeMap<(WorkloadId, u16), Live>,
    pub(super) addresses: Addresses,
    pub(super) secrets: SecretFiles,
    pub(super) http: reqwest::Client,
    pub(super) wake: Arc<Notify>,
}

impl Supervisor {
    /// Takes in a description.
    pub(super) fn ensure(&mut self, workload: &Workload) -> Result<bool, PlatformError> {
        command::check(workload)?;
        let id = &workload.id;
        let secrets = self.secrets_of(workload);
        let template = command::template_hash(workload, &secrets);
        let new = match self.workloads.get(id) {
            Some(old) if old.workload.owner != workload.owner => {
                return Err(PlatformError::NameConflict {
                    id: id.clone(),
                    owner: format!("{} {}", old.workload.owner.kind, old.workload.owner.name),
                });
            }
            Some(old) if !old.removing && old.template == template && old.workload == *workload => {
                return Ok(false);
            }
            Some(old) => {
                let mut instances = old.instances.clone();
                if old.template != template {
                    instances.values_mut().for_each(Record::forget_failures);
                }
                instances
            }
            None => BTreeMap::new(),
        };
        let managed = Managed {
            workload: workload.clone(),
            template,
            removing: false,
            instances: new,
        };
        self.workloads.insert(id.clone(), managed);
        self.save(id).map_err(|error| self.write_failed(&error))?;
        Ok(true)
    }

    /// Begins a removal. Returns whether nothing is left.
    pub(super) fn remove(&mut self, id: &WorkloadId) -> Result<bool, PlatformError> {
        let Some(managed) = self.workloads.get_mut(id) else {
            return Ok(true);
        };
        if !managed.removing {
            managed.removing = true;
            self.save(id).map_err(|error| self.write_failed(&error))?;
        }
        Ok(false)
    }

    /// Asks for the restart of one instance.
    pub(super) fn restart(&mut self, id: &WorkloadId, ordinal: u16) -> Result<(), PlatformError> {
        let managed = self.workloads.get_mut(id);
        let record = managed.and_then(|managed| managed.instances.get_mut(&ordinal));
        let Some(record) = record else {
            return Err(PlatformError::NotFound(format!(
                "instance {ordinal} of {id}"
            )));
        };
        record.restart = record.process.is_some();
        self.save(id).map_err(|error| self.write_failed(&error))
    }

    /// One round: looks at every instance, then acts. Returns whether anything changed.
    pub(super) fn tick(&mut self) -> bool {
        let mut changed = false;
        let mut actions = Vec::new();
        for id in self.workloads.keys().cloned().collect::<Vec<_>>() {
            let looked = self.look(&id);
            let next = self.next_actions(&id);
            if looked {
                self.save_or_warn(&id);
            }
            changed |= looked || !next.is_empty();
            actions.extend(next.into_iter().map(|action| (id.clone(), action)));
            changed |= self.finish_removal(&id);
        }
        for (id, action) in actions {
            match action {
                Action::Start(ordinal) => self.start(&id, ordinal),
                Action::Stop(ordinal) => self.stop(&id, ordinal),
            }
            self.save_or_warn(&id);
        }
        changed
    }

    fn look(&mut self, id: &WorkloadId) -> bool {
        let Some(managed) = self.workloads.get_mut(id) else {
            return false;
        };
        let mut changed = false;
        let Managed {
            workload,
            instances,
            removing,
            ..
        } = managed;
        for (&ordinal, record) in instances.iter_mut() {
            let key = (id.clone(), ordinal);
            let directory = instance_directory(&self.directory, id, ordinal);
            let before = record.clone();
            if let Some(process) = record.process.clone() {
                let live = self.live.entry(key.clone()).or_default();
                match ended(live, &process) {
                    Some(what) => {
                        process.kill_group();
                        self.live.remove(&key);
                        end(record, id, ordinal, &what, &directory);
                    }
                    None => look_at_running(record, live, &process, workload.stop.grace_seconds),
                }
                process::cut_log(&directory);
            }
            record.note_good_run();
            changed |= *record != before;
        }
        let replicas = if *removing { 0 } else { workload.replicas };
        let surplus =
            |ordinal: u16, record: &Record| ordinal >= replicas && record.process.is_none();
        let keeps_data = matches!(workload.kind, WorkloadKind::Stateful { data: Some(_) });
        let before = instances.len();
        instances.retain(|&ordinal, record| {
            let gone = surplus(ordinal, record);
            if gone && !keeps_data {
                let _ = fs::remove_dir_all(instance_directory(&self.directory, id, ordinal));
            }
            !gone
        });
        changed || instances.len() != before
    }

    fn next_actions(&self, id: &WorkloadId) -> Vec<Action> {
        let Some(managed) = self.workloads.get(id) else {
            return Vec::new();
        };
        let now = now_ms();
        let instances = managed
            .instances
            .iter()
            .map(|(&ordinal, record)| InstanceView {
                ordinal,
                at: record.at(&managed.template, now),
            });
        plan(&View {
            replicas: if managed.removing {
                0
            } else {
                managed.workload.replicas
            },
            update: managed.workload.update,
            instances: instances.collect(),
        })
    }

    fn finish_removal(&mut self, id: &WorkloadId) -> bool {
        let done = self
            .workloads
            .get(id)
            .is_some_and(|m| m.removing && m.instances.is_empty());
        if done {
            self.workloads.remove(id);
            let directory = workload_directory(&self.directory, id);
            let _ = fs::remove_file(self.record_file(id));
            // Directories with data stay, and so does theirs.
            let _ = fs::remove_dir(&directory);
            info!(workload = %id, "removed");
        }
        done
    }

    fn start(&mut self, id: &WorkloadId, ordinal: u16) {
        let line = self.line(id, ordinal).map_err(|error| error.to_string());
        let mark = self.mark(id, ordinal);
        let directory = instance_directory(&self.directory, id, ordinal);
        let Some(managed) = self.workloads.get_mut(id) else {
            return;
        };
        let template = managed.template.clone();
        let record = managed.instances.entry(ordinal).or_default();
        let log_from = process::log_size(&directory);
        let started = line.and_then(|line| {
            fs::create_dir_all(&directory)
                .map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
            process::start(&line, &mark, &template, &directory)
        });
        match started {
            Ok((process, child)) => {
                info!(workload = %id, ordinal, pid = process.number(), "started");
                record.has_started(process, &template, log_from);
                let live = Live {
                    child: Some(child),
                    prober: None,
                };
                self.live.insert((id.clone(), ordinal), live);
                self.probe(id, ordinal);
            }
            Err(why) => {
                if record.message.as_ref() != Some(&why) {
                    warn!(workload = %id, ordinal, "cannot start: {why}");
                }
                record.could_not_start(why);
            }
        }
    }

    fn stop(&mut self, id: &WorkloadId, ordinal: u16) {
        let Some(managed) = self.workloads.get_mut(id) else {
            return;
        };
        let stop = managed.workload.stop;
        if let Some(record) = managed.instances.get_mut(&ordinal)
            && let Some(process) = &record.process
        {
            info!(workload = %id, ordinal, pid = process.number(), "stopping");
            process.signal(match stop.signal {
                StopSignal::Term => Signal::TERM,
                StopSignal::Usr2 => Signal::USR2,
            });
            record.ready = false;
            record.stopping = Some(Stopping {
                kill_at: now_ms() + u64::from(stop.grace_seconds) * 1000,
                failing: false,
            });
        }
    }

    /// Begins to ask an instance for its state.
    pub(super) fn probe(&mut self, id: &WorkloadId, ordinal: u16) {
        let env = self
            .line(id, ordinal)
            .map(|line| line.env)
            .unwrap_or_default();
        let Some(managed) = self.workloads.get(id) else {
            return;
        };
        let (workload, Some(record)) = (managed.workload.clone(), managed.instances.get(&ordinal))
        else {
            return;
        };
        let age = Duration::from_millis(now_ms().saturating_sub(record.started_at));
        let was_ready = record.ready;
        let Ok(host) = self.host(&workload, ordinal) else {
            return;
        };
        let target = Target {
            host: host.to_string(),
            env,
            directory: instance_directory(&self.directory, id, ordinal),
            age,
        };
        let prober = Prober::start(
            &workload.probes,
            target,
            was_ready,
            self.http.clone(),
            self.wake.clone(),
        );
        self.live.entry((id.clone(), ordinal)).or_default().prober = Some(prober);
    }

    /// What is known about a workload.
    pub(super) fn state(&mut self, id: &WorkloadId) -> Option<WorkloadState> {
        let managed = self.workloads.get(id)?.clone();
        let instances = managed
            .instances
            .iter()
            .map(|(&ordinal, record)| InstanceState {
                name: id.instance(ordinal),
                ordinal,
                host: self
                    .host(&managed.workload, ordinal)
                    .map(|host| host.to_string())
                    .unwrap_or_default(),
                phase: record.phase(),
                ready: record.ready,
                current: record.process.is_some() && record.template == managed.template,
                restarts: record.restarts,
                stuck: record.is_stuck(),
                process: record
                    .process
                    .as_ref()
                    .map(|process| process.number().to_string()),
                message: record.message.clone(),
            });
        Some(WorkloadState {
            id: id.clone(),
            owner: managed.workload.owner.clone(),
            wanted: if managed.removing {
                0
            } else {
                managed.workload.replicas
            },
            instances: instances.collect(),
            held_back: false,
        })
    }

    /// Records that an instance was stopped with all others.
    pub(super) fn forget(&mut self, id: &WorkloadId, ordinal: u16) {
        self.live.remove(&(id.clone(), ordinal));
        let managed = self.workloads.get_mut(id);
        if let Some(record) = managed.and_then(|managed| managed.instances.get_mut(&ordinal)) {
            record.has_stopped();
        }
        self.save_or_warn(id);
    }
}

/// How a process ended, if it has.
fn ended(live: &mut Live, process: &process::ProcessId) -> Option<String> {
    match live.child.as_mut().map(std::process::Child::try_wait) {
        Some(Ok(Some(status))) => Some(format!("it ended ({status})")),
        Some(Ok(None)) => None,
        Some(Err(_)) | None => (!process.is_alive()).then(|| "it ended".to_owned()),
    }
}

fn end(record: &mut Record, id: &WorkloadId, ordinal: u16, what: &str, directory: &Path) {
    match record.stopping {
        Some(Stopping { failing: false, .. }) => {
            info!(workload = %id, ordinal, "stopped");
            record.has_stopped();
        }
        _ => {
            let log = process::last_lines(directory, record.log_from);
            record.has_failed(what, &log);
            warn!(workload = %id, ordinal, "{}", record.message.as_deref().unwrap_or_default());
        }
    }
}

fn look_at_running(
    record: &mut Record,
    live: &mut Live,
    process: &process::ProcessId,
    grace_seconds: u32,
) {
    if let Some(stopping) = record.stopping {
        if now_ms() >= stopping.kill_at {
            process.kill_group();
        }
        return;
    }
    let Some(prober) = &live.prober else { return };
    record.ready = prober.is_ready();
    if let Some(why) = prober.failure() {
        record.message = Some(why);
        record.ready = false;
        record.stopping = Some(Stopping {
            kill_at: now_ms() + u64::from(grace_seconds) * 1000,
            failing: true,
        });
        process.signal(Signal::TERM);
    }
}

/// Whether an instance runs, for a stop of everything.
pub(super) fn is_running(record: &Record) -> bool {
    !matches!(record.at("", now_ms()), At::Idle | At::Waiting)
}
