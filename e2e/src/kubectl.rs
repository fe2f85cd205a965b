//! kubectl with its plugin `ofa`, and the control plane that tests share: everything of it is real but the pods, in which
//! nothing runs.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::tools::{self, repository, run};

/// kubectl for one cluster.
#[derive(Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    path: String,
}

impl Kubectl {
    /// For the cluster of a kubeconfig; the plugin is put into a folder below `folder`.
    ///
    /// # Errors
    /// When `ofa` is not built.
    pub fn new(kubeconfig: &Path, folder: &Path) -> Result<Self> {
        let plugins = folder.join("plugins");
        std::fs::create_dir_all(&plugins)?;
        let program = tools::own("ofa")?.get_program().to_owned();
        symlink(program, plugins.join("kubectl-ofa"))?;
        Ok(Self {
            kubeconfig: kubeconfig.to_owned(),
            path: format!("{}:{}", plugins.display(), tools::search_path()?),
        })
    }

    /// A program that finds the cluster, and kubectl with its plugin.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        // Looked up by the path it is given, and not by that of this process.
        let mut command = Command::new("env");
        command
            .env("PATH", &self.path)
            .env("KUBECONFIG", &self.kubeconfig)
            .arg(program);
        command
    }

    /// Runs kubectl, which must succeed; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(self.command("kubectl").args(args))
    }
}

/// The shared control plane; it stays for as long as somebody holds it.
#[derive(Debug)]
pub struct ControlPlane {
    /// kubectl for it.
    pub kubectl: Kubectl,
    _lock: File,
}

impl ControlPlane {
    /// Starts it unless it runs, with our CRDs; files of this test are put into `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ensure(folder: &Path) -> Result<Self> {
        let directory = tools::cache()
            .context("neither OFA_CACHE nor HOME is set")?
            .join("run/kubernetes");
        std::fs::create_dir_all(&directory)?;
        // Taken first: it must not end between its start and the first request.
        let lock = File::create(directory.join("users"))?;
        flock(&lock, FlockOperation::LockShared)?;
        let mut ensure = tools::server("kube-cluster")?;
        let kubeconfig =
            run(ensure.arg("ensure").arg(&directory)).context("run: e2e/tools/setup kubernetes")?;
        let kubectl = Kubectl::new(Path::new(&kubeconfig), folder)?;
        let crds = repository().join("crds");
        kubectl.run(&["apply", "--server-side", "-f", &crds.to_string_lossy()])?;
        Ok(Self {
            kubectl,
            _lock: lock,
        })
    }
}
