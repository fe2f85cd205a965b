//! Ports of pods and Services on this machine, by `kubectl port-forward`: it knows every way of logging in that the
//! cluster's users have.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tracing::debug;

use super::cluster::ClusterArgs;

/// Rest before a forward that has ended, with its pod for one, is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a port belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    /// `svc/<name>` or `pod/<name>`.
    pub(crate) object: String,
    pub(crate) port: u16,
}

/// Forwards, which end with this.
pub(crate) struct Forwards {
    cluster: ClusterArgs,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    addresses: HashMap<Target, SocketAddr>,
    kept: JoinSet<()>,
}

impl Forwards {
    pub(crate) fn new(cluster: &ClusterArgs) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.clone(),
            open: Mutex::default(),
        })
    }

    /// Where the target's port is on this machine; the same every time.
    pub(crate) async fn address(&self, target: &Target) -> anyhow::Result<SocketAddr> {
        let mut open = self.open.lock().await;
        if let Some(address) = open.addresses.get(target) {
            return Ok(*address);
        }
        let (child, lines, port) = start(&self.cluster, target, 0).await?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        open.addresses.insert(target.clone(), address);
        let (cluster, target) = (self.cluster.clone(), target.clone());
        open.kept
            .spawn(async move { keep(&cluster, &target, child, lines, port).await });
        Ok(address)
    }
}

/// Makes it again whenever it ends, on the same port.
async fn keep(
    cluster: &ClusterArgs,
    target: &Target,
    mut child: Child,
    mut lines: Lines<BufReader<ChildStdout>>,
    port: u16,
) {
    loop {
        // It says each connection, and would wait for a reader.
        while let Ok(Some(_)) = lines.next_line().await {}
        let ended = child.wait().await;
        debug!(?target, ?ended, "the forward has ended");
        loop {
            tokio::time::sleep(AGAIN_AFTER).await;
            match start(cluster, target, port).await {
                Ok((next, said, _)) => {
                    (child, lines) = (next, said);
                    break;
                }
                Err(error) => debug!(?target, %error, "it cannot be made again yet"),
            }
        }
    }
}

/// Starts one, on `port` of this machine or, with 0, on any.
async fn start(
    cluster: &ClusterArgs,
    target: &Target,
    port: u16,
) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>, u16)> {
    let local = if port == 0 {
        String::new()
    } else {
        port.to_string()
    };
    let mut command = cluster.kubectl();
    command
        .args(["port-forward", "--address", "127.0.0.1", "--namespace"])
        .arg(&target.namespace)
        .arg(&target.object)
        .arg(format!("{local}:{}", target.port))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .context("kubectl cannot be run; install it, or name the router's address by --router")?;
    let out = child.stdout.take().context("kubectl has no output")?;
    let mut lines = BufReader::new(out).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    if let Some(port) = port_in(&first) {
        return Ok((child, lines, port));
    }
    let mut why = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut why).await?;
    }
    bail!(
        "no way to port {} of {} in namespace {}: {}",
        target.port,
        target.object,
        target.namespace,
        why.trim()
    );
}

/// The port in `Forwarding from 127.0.0.1:40123 -> 8002`.
fn port_in(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("Forwarding from 127.0.0.1:")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_tells_the_port_it_has_chosen() {
        assert_eq!(
            port_in("Forwarding from 127.0.0.1:40123 -> 8002"),
            Some(40123)
        );
        assert_eq!(port_in("error: unable to forward port"), None);
    }
}
