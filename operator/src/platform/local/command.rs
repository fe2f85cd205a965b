//! The pure translation of a workload's instance into a command line, its environment and its files.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::names::Names;
use super::programs::program_of_image;
use super::text::{expand, replace_hosts, replace_paths};
use crate::platform::{
    DataVolume, EnvValue, FileContent, PlatformError, SecretData, SecretKey, Workload, WorkloadKind,
};

/// Name of this platform in messages.
pub(super) const PLATFORM: &str = "local";

/// What an instance is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Program, by name or path.
    pub program: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment, on top of the few variables every program gets.
    pub env: BTreeMap<String, String>,
    /// Files to write before the start.
    pub files: Vec<FileToWrite>,
    /// Directories that must exist before the start.
    pub directories: Vec<PathBuf>,
    /// Directory to empty before the start.
    pub scratch: Option<PathBuf>,
}

/// A file to write before the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileToWrite {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: String,
    /// Whether only the owner may read it.
    pub sensitive: bool,
    /// Whether a change is put under the running process.
    pub live: bool,
}

/// Secrets of the workload's namespace by their names.
pub type Secrets = BTreeMap<String, SecretData>;

/// What surrounds an instance.
pub struct Surroundings<'a> {
    /// Ordinal of the instance.
    pub ordinal: u16,
    /// Its address.
    pub host: Ipv4Addr,
    /// The directory that stands for the root of its file system where files are mounted.
    pub root: &'a Path,
    /// Names of services.
    pub names: &'a Names,
    /// Secrets the workload refers to.
    pub secrets: &'a Secrets,
}

/// Refuses what child processes of one machine cannot do. Every field is looked at.
///
/// # Errors
/// `Unsupported` with the first such field.
pub fn check(workload: &Workload) -> Result<(), PlatformError> {
    let Workload {
        id: _,
        owner: _,
        // Made for trying things out: what a newer operator builds is to be seen at once.
        chosen: _,
        kind,
        image: _,
        command: _,
        args: _,
        env: _,
        files: _,
        ports,
        probes: _,
        replicas,
        spread,
        resources,
        stop: _,
        update: _,
        services: _,
    } = workload;
    let unsupported = |field, reason: &str| {
        Err(PlatformError::Unsupported {
            platform: PLATFORM,
            field,
            reason: reason.to_owned(),
        })
    };
    if spread.mode == ofa_crds::api::SpreadMode::Required && *replicas > 1 {
        return unsupported(
            "spread.mode Required",
            "there is one host only; use Preferred",
        );
    }
    // Requests help a scheduler choose among hosts; with one host there is nothing to choose.
    if !resources.limits.is_empty() {
        return unsupported(
            "resources.limits",
            "processes are not confined; leave the limits out",
        );
    }
    if let WorkloadKind::Stateful {
        data: Some(DataVolume { path, size: _ }),
    } = kind
        && !path.starts_with('/')
    {
        return unsupported("data.path", "it must be an absolute path");
    }
    for port in ports {
        match port.host_port {
            Some(_) if *replicas > 1 => {
                return unsupported(
                    "ports.hostPort",
                    "several instances cannot share a port of the host; use one replica",
                );
            }
            Some(host_port) if host_port != port.port => {
                return unsupported(
                    "ports.hostPort",
                    "a process listens on the host itself; make hostPort and containerPort equal",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// What an instance is restarted for when it changes: everything its process gets to see.
#[must_use]
pub fn template_hash(workload: &Workload, secrets: &Secrets) -> String {
    let Workload {
        kind,
        image,
        command,
        args,
        env,
        files,
        ports,
        probes,
        ..
    } = workload;
    let files = files.iter().map(|file| match &file.content {
        FileContent::Live(_) => (&file.path, None),
        content => (&file.path, Some(content)),
    });
    let files: Vec<_> = files.collect();
    let seen = serde_json::json!([kind, image, command, args, env, files, ports, probes]);
    let mut hash = Sha256::new();
    hash.update(seen.to_string());
    for key in secret_keys(workload) {
        hash.update(
            secrets
                .get(&key.secret)
                .and_then(|data| data.0.get(&key.key))
                .map_or("", String::as_str),
        );
        hash.update([0]);
    }
    hex(&hash.finalize()[..8])
}

/// The secret values a workload refers to.
pub fn secret_keys(workload: &Workload) -> impl Iterator<Item = &SecretKey> {
    let of_env = workload.env.iter().filter_map(|var| match &var.value {
        EnvValue::Secret(key) => Some(key),
        _ => None,
    });
    let of_files = workload
        .files
        .iter()
        .filter_map(|file| match &file.content {
            FileContent::Secret { key, .. } => Some(key),
            _ => None,
        });
    of_env.chain(of_files)
}

/// Translates one instance.
///
/// # Errors
/// `MissingSecret` when a value is not there.
pub fn command_line(
    workload: &Workload,
    around: &Surroundings<'_>,
) -> Result<CommandLine, PlatformError> {
    let (data, scratch) = match &workload.kind {
        WorkloadKind::Stateless { scratch } => (None, scratch.as_deref()),
        WorkloadKind::Stateful { data } => (data.as_ref().map(|volume| volume.path.as_str()), None),
    };
    let directories: Vec<&str> = data.into_iter().chain(scratch).collect();
    let local = |text: &str| localize(text, workload, &directories, around);
    let env = environment(workload, around, &local)?;
    let mut words = workload
        .command
        .iter()
        .chain(&workload.args)
        .map(|word| local(&expand(word, &env)));
    let program = if workload.command.is_empty() {
        program_of_image(&workload.image).to_owned()
    } else {
        words.next().unwrap_or_default()
    };
    let args = words.collect();
    Ok(CommandLine {
        program,
        args,
        files: files(workload, around, &local)?,
        directories: directories
            .iter()
            .map(|path| inside(around.root, path))
            .collect(),
        scratch: scratch.map(|path| inside(around.root, path)),
        env,
    })
}

/// The address to listen on is the instance's own: all instances share the machine's network.
fn environment(
    workload: &Workload,
    around: &Surroundings<'_>,
    local: &impl Fn(&str) -> String,
) -> Result<BTreeMap<String, String>, PlatformError> {
    let mut env = BTreeMap::new();
    for var in &workload.env {
        let value = match &var.value {
            EnvValue::Text(text) => local(&expand(text, &env)),
            EnvValue::PodIp | EnvValue::BindAddress => around.host.to_string(),
            EnvValue::PodName => workload.id.instance(around.ordinal),
            EnvValue::Secret(key) => secret_value(workload, key, around.secrets)?.to_owned(),
        };
        env.insert(var.name.clone(), value);
    }
    Ok(env)
}

fn files(
    workload: &Workload,
    around: &Surroundings<'_>,
    local: &impl Fn(&str) -> String,
) -> Result<Vec<FileToWrite>, PlatformError> {
    let mut files = Vec::with_capacity(workload.files.len());
    for file in &workload.files {
        let (content, sensitive) = match &file.content {
            FileContent::Plain(text) => (local(text), false),
            FileContent::Sensitive(text) | FileContent::Live(text) => (local(text), true),
            FileContent::Secret { key, optional } => {
                match secret_value(workload, key, around.secrets) {
                    Ok(value) => (value.to_owned(), true),
                    Err(_) if *optional => continue,
                    Err(error) => return Err(error),
                }
            }
        };
        files.push(FileToWrite {
            path: inside(around.root, &file.path),
            content,
            sensitive,
            live: matches!(file.content, FileContent::Live(_)),
        });
    }
    Ok(files)
}

fn secret_value<'a>(
    workload: &Workload,
    key: &SecretKey,
    secrets: &'a Secrets,
) -> Result<&'a str, PlatformError> {
    let data = secrets.get(&key.secret);
    let value = data.and_then(|data| data.0.get(&key.key));
    value.map(String::as_str).ok_or_else(|| {
        let namespace = &workload.id.namespace;
        PlatformError::MissingSecret(
            format!("{namespace}/{}", key.secret),
            format!(
                "put the value into the file secrets/{namespace}/{}/{} of the state directory",
                key.secret, key.key
            ),
        )
    })
}

fn localize(
    text: &str,
    workload: &Workload,
    directories: &[&str],
    around: &Surroundings<'_>,
) -> String {
    let hosts = replace_hosts(text, |name, port| {
        let (address, port) = around.names.resolve(&workload.id.namespace, name, port)?;
        Some((address.to_string(), port))
    });
    replace_paths(&hosts, |path| {
        let of_directory = directories
            .iter()
            .any(|directory| is_within(path, directory));
        let of_file = workload
            .files
            .iter()
            .any(|file| is_within(&file.path, path));
        (of_directory || of_file).then(|| inside(around.root, path).to_string_lossy().into_owned())
    })
}

/// Whether `path` is `directory` or lies in it. Nothing counts as lying in the root itself.
fn is_within(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    !directory.is_empty()
        && path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
