//! The Swarm that all tests share.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Image of the programs that tests run: busybox, under four of its names.
pub(crate) const IMAGE: &str = "ofa-test/busybox:1";

/// Exit status of `swarm-cluster` on a machine where engines cannot run.
const CANNOT: i32 = 77;

/// A running Swarm. It ends when this process does.
pub(crate) struct Cluster {
    directory: PathBuf,
    _process: Child,
    _holds: ChildStdin,
}

/// Whether there is a Swarm.
pub(crate) enum Start {
    Ready(&'static Cluster),
    Impossible(String),
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/tools/swarm/swarm-cluster")
}

pub(crate) fn start() -> Start {
    let mut process = Command::new(tools())
        .args(["hold", "3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let Some(directory) = line.strip_prefix("ready ") else {
        let mut why = String::new();
        process
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut why)
            .unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.code(), Some(CANNOT), "swarm-cluster: {why}");
        return Start::Impossible(why.trim().to_owned());
    };
    let cluster = Cluster {
        directory: PathBuf::from(directory.trim()),
        _holds: process.stdin.take().unwrap(),
        _process: process,
    };
    cluster.load_image();
    Start::Ready(Box::leak(Box::new(cluster)))
}

impl Cluster {
    /// Where the engine of a node listens.
    pub(crate) fn engine(&self, node: usize) -> String {
        format!("unix://{}/{node}/docker.sock", self.directory.display())
    }

    /// Runs `swarm-cluster`, which must succeed.
    pub(crate) fn tool(&self, args: &[&str]) -> String {
        let output = Command::new(tools()).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "swarm-cluster {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs the docker client on a node, which must succeed.
    pub(crate) fn docker(&self, node: usize, args: &[&str]) -> String {
        let node = node.to_string();
        self.tool(&[&["docker", &node], args].concat())
    }

    fn load_image(&self) {
        let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/make-image");
        let tar = self.directory.join("busybox.tar");
        let busybox = Command::new("sh")
            .args(["-c", "command -v busybox"])
            .output();
        let busybox = String::from_utf8(busybox.unwrap().stdout).unwrap();
        let busybox = busybox.trim();
        let names = ["sh", "sleep", "touch", "test", "cat", "nslookup"];
        let names = names.map(|name| format!("{busybox}=/bin/{name}"));
        let made = Command::new(make)
            .arg(&tar)
            .args([IMAGE, busybox])
            .args(names)
            .status();
        assert!(made.unwrap().success());
        self.tool(&["load", tar.to_str().unwrap()]);
    }
}
