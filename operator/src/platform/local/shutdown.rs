//! The end of everything: nobody is left to be handed over to, so nobody waits for a hand-over.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use tracing::info;

use super::process::ProcessId;
use super::supervisor::{Supervisor, is_running};
use crate::platform::{WorkloadId, WorkloadKind};

/// What a forwarder needs for its final commit and a broker for closing its log, with room to spare.
const GRACE: Duration = Duration::from_secs(20);

/// How often it is looked whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Stops what uses others first, then what serves them.
pub(super) async fn stop_all(supervisor: &Mutex<Supervisor>) {
    stop(supervisor, |kind| {
        matches!(kind, WorkloadKind::Stateless { .. })
    })
    .await;
    stop(supervisor, |kind| {
        matches!(kind, WorkloadKind::Stateful { .. })
    })
    .await;
}

async fn stop(supervisor: &Mutex<Supervisor>, wanted: impl Fn(&WorkloadKind) -> bool) {
    let processes = running(supervisor, wanted);
    info!(processes = processes.len(), "stopping");
    for (_, _, process) in &processes {
        process.signal(Signal::TERM);
    }
    let deadline = Instant::now() + GRACE;
    while processes.iter().any(|(_, _, process)| process.is_alive()) && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut supervisor = supervisor.lock();
    for (id, ordinal, process) in processes {
        process.kill_group();
        supervisor.forget(&id, ordinal);
    }
}

fn running(
    supervisor: &Mutex<Supervisor>,
    wanted: impl Fn(&WorkloadKind) -> bool,
) -> Vec<(WorkloadId, u16, ProcessId)> {
    let supervisor = supervisor.lock();
    let workloads = supervisor
        .workloads
        .iter()
        .filter(|(_, m)| wanted(&m.workload.kind));
    let instances = workloads.flat_map(|(id, managed)| {
        let running = managed
            .instances
            .iter()
            .filter(|(_, record)| is_running(record));
        running.filter_map(move |(&ordinal, record)| {
            Some((id.clone(), ordinal, record.process.clone()?))
        })
    });
    instances.collect()
}
