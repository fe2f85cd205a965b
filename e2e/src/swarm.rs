//! A Docker Swarm of several engines on this machine, with the example's stack on it.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::image;
use crate::tools::{repository, run};

/// This machine's address for all nodes.
pub const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 1));

/// The Swarm; it ends with this process.
#[derive(Debug)]
pub struct Swarm {
    directory: PathBuf,
    _process: Child,
    _holds: ChildStdin,
}

fn cluster() -> Command {
    Command::new(repository().join("e2e/tools/swarm/swarm-cluster"))
}

impl Swarm {
    /// Starts a Swarm of that many nodes.
    ///
    /// # Errors
    /// When engines cannot run here.
    pub fn start(nodes: usize) -> Result<Self> {
        let mut process = cluster()
            .args(["hold", &nodes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let Some(directory) = line.trim().strip_prefix("ready ") else {
            bail!("no Swarm can run here, see above; run as root: e2e/tools/setup docker");
        };
        Ok(Self {
            directory: PathBuf::from(directory),
            _holds: process.stdin.take().context("no input")?,
            _process: process,
        })
    }

    /// Makes images of our programs and of nats-server, as they were built, and loads them on all nodes.
    ///
    /// # Errors
    /// When one is not built.
    pub fn load_images(&self) -> Result<()> {
        let folder = tempfile::tempdir()?;
        for image in image::make_all(folder.path())? {
            run(cluster().arg("load").arg(&image))?;
        }
        Ok(())
    }

    /// A docker client of a node.
    #[must_use]
    pub fn docker(&self, node: usize) -> Command {
        let mut command = Command::new("docker");
        let socket = self.directory.join(node.to_string()).join("docker.sock");
        command
            .arg("--host")
            .arg(format!("unix://{}", socket.display()));
        command
    }

    /// Runs the docker client on the manager, which must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn on_manager(&self, args: &[&str]) -> Result<String> {
        run(self.docker(1).args(args))
    }

    /// Where the manager's engine listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("1/docker.sock")
    }

    /// Installs the stack of a folder like `examples/swarm`, or changes it.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn deploy(&self, folder: &Path, kafka: &str, resources: u32) -> Result<()> {
        let mut command = self.docker(1);
        command
            .current_dir(folder)
            .env("KAFKA_BROKER", kafka)
            .env("OFA_RESOURCES", resources.to_string())
            .args(["stack", "deploy", "--resolve-image", "never"])
            .args(["--compose-file", "stack.yml", "fanout"]);
        run(&mut command).map(drop)
    }

    /// A copy of `examples/swarm` whose Kafka and whose engine are those of the test.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn copy_example(&self, to: &Path, kafka: &str) -> Result<()> {
        let from = repository().join("examples/swarm");
        std::fs::create_dir_all(to.join("resources"))?;
        for name in ["shards", "pool", "router", "replay"] {
            let file = format!("resources/{name}.yaml");
            let text = std::fs::read_to_string(from.join(&file))?;
            std::fs::write(to.join(&file), text.replace("kafka:9092", kafka))?;
        }
        let stack = std::fs::read_to_string(from.join("stack.yml"))?;
        let socket = format!("{}:/var/run/docker.sock", self.socket().display());
        let stack = stack.replace("/var/run/docker.sock:/var/run/docker.sock", &socket);
        std::fs::write(to.join("stack.yml"), stack)?;
        Ok(())
    }

    /// What `operator status` says inside the operator's container; nothing while there is none.
    #[must_use]
    pub fn status(&self) -> Value {
        let filter = "label=com.docker.swarm.service.name=fanout_operator";
        let Ok(container) = self.on_manager(&["ps", "--quiet", "--filter", filter]) else {
            return Value::Null;
        };
        let Some(container) = container.lines().next() else {
            return Value::Null;
        };
        let ask = [
            "operator",
            "status",
            "--output",
            "json",
            "--state-dir",
            "/state",
        ];
        let said = self.on_manager(&[&["exec", container], &ask[..]].concat());
        said.ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }
}
