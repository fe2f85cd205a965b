//! A Kubernetes of real nodes on this machine, with the example's factory on it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::process::Process;
use crate::tools::{self, repository, run};
use crate::{image, scene};

/// This machine's address for all nodes and pods.
pub const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 98, 0, 1));

/// The cluster's DNS, as pods of the factory ask it.
const RESOLVER: &str = "nameserver 10.96.0.10\nsearch factory.svc.cluster.local svc.cluster.local \
    cluster.local\noptions ndots:5\n";

/// Lines of each log that are shown when something fails.
const SHOWN_LINES: usize = 30;

/// A cluster; it ends with this.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    kubectl: Kubectl,
}

fn nodes() -> Command {
    Command::new(repository().join("e2e/tools/kubernetes/kube-nodes"))
}

impl Cluster {
    /// Starts a cluster of that many nodes, all with images of our programs and of nats-server, in `folder`.
    ///
    /// # Errors
    /// When nodes cannot run here, or a program is not built.
    pub fn start(count: usize, folder: &Path) -> Result<Self> {
        let images = folder.join("images");
        std::fs::create_dir_all(&images)?;
        let images = image::make_all(&images)?;
        let folder = folder.join("cluster");
        let cluster = Self {
            kubectl: Kubectl::new(&folder.join("admin.kubeconfig"), &folder)?,
            folder,
        };
        let mut up = nodes();
        up.arg("up").arg(&cluster.folder).arg(count.to_string());
        run(up.args(images)).context("run as root: e2e/tools/setup kubernetes kubelet")?;
        Ok(cluster)
    }

    /// Runs kubectl, which must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args)
    }

    /// Installs the chart as release `fanout`, without a router: the factory has its own.
    ///
    /// # Errors
    /// When helm refuses, or the operator does not get ready.
    pub fn install_operator(&self, kafka: &str) -> Result<()> {
        let chart = repository().join("charts/openfactory-fanout");
        let mut helm = self.kubectl.command("helm");
        helm.args(["install", "fanout"])
            .arg(chart)
            .args(["--namespace", "fanout", "--create-namespace"])
            .args(["--set", "router.enabled=false", "--set"])
            .arg(format!("kafka.bootstrapServers={kafka}"))
            .args(["--wait", "--timeout", "180s"]);
        run(&mut helm).map(drop)
    }

    /// A copy of `examples/factory` with another Kafka, and `nodes` nodes in its first shard, without what a plant has
    /// itself: Kafka and machines.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn copy_factory(&self, to: &Path, kafka: &str, nodes: usize) -> Result<()> {
        let from = repository().join("examples/factory");
        std::fs::create_dir_all(to)?;
        for name in ["shards", "pool", "router", "replay", "groups"] {
            let file = format!("{name}.yaml");
            let text = std::fs::read_to_string(from.join(&file))?;
            let text = text.replace("kafka:9092", kafka);
            let text = text.replacen("nodes: 2", &format!("nodes: {nodes}"), 1);
            std::fs::write(to.join(file), text)?;
        }
        Ok(())
    }

    /// What `kubectl ofa status` says of the factory; nothing while it cannot.
    #[must_use]
    pub fn status(&self) -> Value {
        let args = [
            "ofa",
            "status",
            "--namespace",
            "factory",
            "--output",
            "json",
        ];
        let said = self.kubectl(&args);
        said.ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// The pods that match a label, as the API has them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn pods(&self, label: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(&["-n", "factory", "get", "pods", "-l", label, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Starts `ofa` as if on a node, with the cluster's names; what it prints goes into `out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn on_node(&self, node: usize, args: &[String], out: &Path) -> Result<Process> {
        let folder = out.parent().context("a file in a folder")?;
        let resolver = folder.join("resolv.conf");
        std::fs::write(&resolver, RESOLVER)?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/ofa-node-{node}"))
            .args(["unshare", "--mount", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc/resolv.conf && out=$2 && shift 2 && exec \"$@\" >\"$out\"")
            .arg("sh")
            .args([&resolver, out])
            .arg(tools::build_folder()?.join("ofa"))
            .args(args)
            .stdout(Stdio::null());
        let name = out.file_stem().unwrap_or_default().to_string_lossy();
        Process::start(&name, folder, command)
    }

    /// Cuts the power of a node.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn cut(&self, node: usize) -> Result<()> {
        let mut stop = nodes();
        run(stop.arg("stop").arg(&self.folder).arg(node.to_string())).map(drop)
    }

    /// Brings a node back.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn restore(&self, node: usize) -> Result<()> {
        let mut start = nodes();
        run(start.arg("start").arg(&self.folder).arg(node.to_string())).map(drop)
    }

    /// All that helps to see why something failed.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut text = String::new();
        let ask: [&[&str]; 4] = [
            &["get", "nodes,pods", "-A", "-o", "wide"],
            &["-n", "factory", "get", "events", "--sort-by=.lastTimestamp"],
            &["ofa", "status", "-n", "factory"],
            &[
                "-n",
                "fanout",
                "logs",
                "-l",
                "app.kubernetes.io/component=operator",
                "--tail=60",
            ],
        ];
        for args in ask {
            let said = self
                .kubectl(args)
                .unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = said.lines().collect();
            let shown = &lines[lines.len().saturating_sub(2 * SHOWN_LINES)..];
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "---- kubectl {} ----\n{}",
                args.join(" "),
                shown.join("\n")
            );
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = run(nodes().arg("down").arg(&self.folder)) {
            scene::say(&format!("the cluster does not end: {error:#}"));
        }
    }
}
