//! Files of instances: configs and secrets, which never change in a Swarm. Another content is another config, by its name.

use std::collections::BTreeMap;

use super::PLATFORM;
use crate::digest::digest;
use crate::platform::{FileContent, PlatformError, SecretData, SecretKey, Workload};

/// Engines refuse larger secrets, older ones also larger configs.
pub(super) const LARGEST: usize = 500_000;

/// Longest name of a config or secret.
const LONGEST_NAME: usize = 64;

/// Secrets of the workload's namespace by their names.
pub type Secrets = BTreeMap<String, SecretData>;

/// A config or secret that must exist before what uses it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name, different for every content.
    pub name: String,
    /// Where instances see it.
    pub path: String,
    /// A secret, not a config.
    pub sensitive: bool,
    /// What is in it.
    pub content: String,
}

/// The files of a workload.
///
/// # Errors
/// `MissingSecret`, or `Unsupported` where a Swarm cannot hold a file.
pub(super) fn files(
    workload: &Workload,
    secrets: &Secrets,
) -> Result<Vec<StoredFile>, PlatformError> {
    let mut files = Vec::with_capacity(workload.files.len());
    for file in &workload.files {
        let (content, sensitive) = match &file.content {
            FileContent::Plain(text) => (text.as_str(), false),
            // Nothing reaches a running container: another content is another container.
            FileContent::Sensitive(text) | FileContent::Live(text) => (text.as_str(), true),
            FileContent::Secret { key, optional } => match value(workload, key, secrets) {
                Ok(value) => (value, true),
                Err(_) if *optional => continue,
                Err(error) => return Err(error),
            },
        };
        if content.is_empty() || content.len() > LARGEST {
            return Err(PlatformError::Unsupported {
                platform: PLATFORM,
                field: "files",
                reason: format!(
                    "{} has {} bytes; configs and secrets have 1 to {LARGEST}",
                    file.path,
                    content.len()
                ),
            });
        }
        files.push(StoredFile {
            name: name(workload, &file.path, content),
            path: file.path.clone(),
            sensitive,
            content: content.to_owned(),
        });
    }
    Ok(files)
}

/// The secrets a workload refers to, by name.
pub(super) fn secret_names(workload: &Workload) -> impl Iterator<Item = &str> {
    use crate::platform::EnvValue;
    let of_env = workload.env.iter().filter_map(|var| match &var.value {
        EnvValue::Secret(key) => Some(key.secret.as_str()),
        _ => None,
    });
    let of_files = workload
        .files
        .iter()
        .filter_map(|file| match &file.content {
            FileContent::Secret { key, .. } => Some(key.secret.as_str()),
            FileContent::Plain(_) | FileContent::Sensitive(_) | FileContent::Live(_) => None,
        });
    of_env.chain(of_files)
}

/// One value of a secret.
///
/// # Errors
/// `MissingSecret` with how to provide it.
pub(super) fn value<'a>(
    workload: &Workload,
    key: &SecretKey,
    secrets: &'a Secrets,
) -> Result<&'a str, PlatformError> {
    let found = secrets
        .get(&key.secret)
        .and_then(|data| data.0.get(&key.key));
    found.map(String::as_str).ok_or_else(|| {
        let (namespace, secret, key) = (&workload.id.namespace, &key.secret, &key.key);
        PlatformError::MissingSecret(
            format!("{namespace}/{secret}"),
            format!(
                "give the operator's service a secret with the target {namespace}/{secret}/{key}; {} cannot start without it",
                workload.id.name
            ),
        )
    })
}

/// `<workload>-<file>-<digest>`. The owner's unique id goes into the digest, so that nobody learns a short password from
/// it by trying.
fn name(workload: &Workload, path: &str, content: &str) -> String {
    let digest = digest(&[
        &workload.id.namespace,
        &workload.id.name,
        &workload.owner.uid,
        path,
        content,
    ]);
    let file = path.rsplit('/').next().unwrap_or(path);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let readable: String = format!("{}-{file}", workload.id.name)
        .chars()
        .filter(|c| legal(*c))
        .take(LONGEST_NAME - 1 - digest.len())
        .collect();
    format!("{readable}-{digest}")
}
