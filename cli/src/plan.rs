//! `ofa plan`: what a change would do, nothing of it done.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use ofa_operator::cli::StateArgs;
use ofa_operator::plan::{self, Objects};
use ofa_operator::resources::{Folder, Kind, ObjectKey, Snapshot};

use super::cluster::ClusterArgs;
use super::output;

/// Namespace of an object that names none, away from Kubernetes.
const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// File or folder with resources that would be applied; `-` reads standard input; may be repeated
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        required_unless_present = "delete"
    )]
    filename: Vec<PathBuf>,
    /// Resource that would be deleted; may be repeated
    #[arg(long, value_name = "KIND/NAME")]
    delete: Vec<String>,
    /// What is in no file would be deleted too
    #[arg(long)]
    prune: bool,
    /// Compare with this folder of resources, and not with what an operator has put in force
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kube", "state_dir"])]
    against: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each step.
    Text,
    /// One JSON object.
    Json,
}

impl PlanArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (before, namespace) = self.before().await?;
        let (applied, problems) = plan::wanted(&read(&self.filename)?, &namespace);
        let mut after = if self.prune {
            Objects::new()
        } else {
            before.clone()
        };
        after.extend(applied);
        for named in &self.delete {
            let key = key_of(named, &namespace)?;
            if after.remove(&key).is_none() {
                bail!("there is no {key}, so it cannot be deleted");
            }
        }
        if self.on_cluster() {
            after.retain(|key, _| is_ours(key.kind));
        }
        keep_status(&before, &mut after);
        let plan = plan::plan(&before, &after, problems);
        match self.output {
            Format::Json => output::json(&plan),
            Format::Text => output::line(plan.to_string().trim_end()),
        }
    }

    fn on_cluster(&self) -> bool {
        self.against.is_none() && self.cluster.is_meant()
    }

    /// What is in force, and the namespace of what names none.
    async fn before(&self) -> anyhow::Result<(Objects, String)> {
        if let Some(folder) = &self.against {
            let files = read(std::slice::from_ref(folder))?;
            let (objects, problems) = plan::wanted(&files, DEFAULT_NAMESPACE);
            if let Some(problem) = problems.first() {
                bail!("{problem}");
            }
            return Ok((objects, DEFAULT_NAMESPACE.to_owned()));
        }
        if self.on_cluster() {
            let cluster = self.cluster.connect().await?;
            let objects = plan::objects(cluster.objects().await?);
            return Ok((objects, cluster.namespace));
        }
        let state = &self.state.state_dir;
        let objects =
            plan::in_force(state).with_context(|| format!("{} cannot be read", state.display()))?;
        Ok((objects, DEFAULT_NAMESPACE.to_owned()))
    }
}

/// On Kubernetes the rest is not the operator's.
fn is_ours(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NatsShard | Kind::ForwarderPool | Kind::AssetGroup
    )
}

/// A file says nothing about what its object has come to so far.
fn keep_status(before: &Objects, after: &mut Objects) {
    for (key, object) in after {
        if let Some(old) = before.get(key) {
            object.take_status(old.clone());
        }
    }
}

fn key_of(named: &str, namespace: &str) -> anyhow::Result<ObjectKey> {
    let kinds = Kind::ALL.into_iter().filter(|kind| is_ours(*kind));
    let found = named.split_once('/').and_then(|(kind, name)| {
        let same = |known: &Kind| known.name().eq_ignore_ascii_case(kind);
        Some((kinds.clone().find(same)?, name))
    });
    let Some((kind, name)) = found else {
        let known: Vec<&str> = kinds.map(Kind::name).collect();
        bail!(
            "'{named}' names no resource; use KIND/NAME, KIND being one of {}",
            known.join(", ")
        );
    };
    Ok(ObjectKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn read(paths: &[PathBuf]) -> anyhow::Result<Snapshot> {
    let mut all = Snapshot {
        complete: true,
        ..Snapshot::default()
    };
    for path in paths {
        if path.is_dir() {
            let folder = Folder::new(path.clone()).read();
            all.files.extend(folder.files);
            all.problems.extend(folder.problems);
        } else {
            let name = path.display().to_string();
            let text = text_of(path).with_context(|| format!("{name} cannot be read"))?;
            all.files.insert(name, text);
        }
    }
    Ok(all)
}

fn text_of(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
