//! Files of a workload as volumes: one volume for each directory that holds some, its files projected into it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeMount, VolumeProjection,
};

use crate::platform::{FileContent, MountedFile};

/// Readable by the group too: the files are root's, the programs run as a group that `fsGroup` adds.
const MODE: i32 = 0o440;

/// The object with a workload's own files. All are in a Secret, so that the operator needs no right to ConfigMaps.
#[must_use]
pub(super) fn secret_name(workload: &str) -> String {
    format!("{workload}-files")
}

/// The key of a file in its object: the path, with what keys may not contain written as `__` (for `/`) or
/// `_` and its code. No two paths have one key.
#[must_use]
pub(super) fn key(path: &str) -> String {
    let mut key = String::with_capacity(path.len());
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'/' => key.push_str("__"),
            b'-' | b'.' => key.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => key.push(char::from(byte)),
            _ => key.push_str(&format!("_{byte:02x}")),
        }
    }
    key
}

/// The texts of a workload's own files, by key.
#[derive(Default)]
pub(super) struct Texts {
    /// With another text the pods are other ones.
    pub(super) fixed: BTreeMap<String, String>,
    /// Put under running pods: kubelets bring a changed Secret to them by themselves.
    pub(super) live: BTreeMap<String, String>,
}

#[must_use]
pub(super) fn texts(files: &[MountedFile]) -> Texts {
    let mut texts = Texts::default();
    for file in files {
        let (kind, text) = match &file.content {
            FileContent::Plain(text) | FileContent::Sensitive(text) => (&mut texts.fixed, text),
            FileContent::Live(text) => (&mut texts.live, text),
            FileContent::Secret { .. } => continue,
        };
        kind.insert(key(&file.path), text.clone());
    }
    texts
}

/// Volumes with the files, and where they are mounted. A directory inside another one with files joins it: a mount
/// inside a read-only mount has no place to be.
#[must_use]
pub(super) fn volumes(workload: &str, files: &[MountedFile]) -> (Vec<Volume>, Vec<VolumeMount>) {
    let roots = mount_points(files);
    let volumes = roots.iter().enumerate().map(|(index, root)| {
        let inside = files.iter().filter(|file| is_below(&file.path, root));
        Volume {
            name: format!("files-{index}"),
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(MODE),
                sources: Some(sources(workload, root, inside)),
            }),
            ..Volume::default()
        }
    });
    let mounts = roots.iter().enumerate().map(|(index, root)| VolumeMount {
        name: format!("files-{index}"),
        mount_path: (*root).to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    (volumes.collect(), mounts.collect())
}

fn mount_points(files: &[MountedFile]) -> Vec<&str> {
    let directories: BTreeSet<&str> = files.iter().map(|file| directory(&file.path)).collect();
    let mut roots: Vec<&str> = Vec::new();
    // In order, a directory comes before what is inside it.
    for directory in directories {
        if !roots
            .iter()
            .any(|root| is_below(&format!("{directory}/"), root))
        {
            roots.push(directory);
        }
    }
    roots
}

fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    }
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// What is projected from where; files of one object together.
fn sources<'a>(
    workload: &str,
    root: &str,
    files: impl Iterator<Item = &'a MountedFile>,
) -> Vec<VolumeProjection> {
    let mut by_origin: BTreeMap<Origin, Vec<KeyToPath>> = BTreeMap::new();
    for file in files {
        let (origin, key) = origin(workload, file);
        by_origin.entry(origin).or_default().push(KeyToPath {
            key,
            path: file.path[root.len() + 1..].to_owned(),
            mode: None,
        });
    }
    by_origin.into_iter().map(projection).collect()
}

/// A Secret, and whether what is missing in it is left out.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    secret: String,
    optional: bool,
}

fn origin(workload: &str, file: &MountedFile) -> (Origin, String) {
    let own = || Origin {
        secret: secret_name(workload),
        optional: false,
    };
    match &file.content {
        FileContent::Plain(_) | FileContent::Sensitive(_) | FileContent::Live(_) => {
            (own(), key(&file.path))
        }
        FileContent::Secret { key, optional } => {
            let secret = key.secret.clone();
            let optional = *optional;
            (Origin { secret, optional }, key.key.clone())
        }
    }
}

fn projection((origin, items): (Origin, Vec<KeyToPath>)) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection {
            name: origin.secret,
            items: Some(items),
            optional: origin.optional.then_some(true),
        }),
        ..VolumeProjection::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_two_paths_have_one_key(a in "[a-c_/. é]{0,6}", b in "[a-c_/. é]{0,6}") {
            let legal = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            let (ka, kb) = (key(&a), key(&b));
            prop_assert!(legal(&ka));
            prop_assert_eq!(ka == kb, a.trim_start_matches('/') == b.trim_start_matches('/'));
        }
    }

    #[test]
    fn a_directory_inside_another_shares_its_volume() {
        let file = |path: &str| MountedFile {
            path: path.to_owned(),
            content: FileContent::Plain(String::new()),
        };
        let files = [
            file("/etc/nats/tls/tls.crt"),
            file("/etc/nats/nats.conf"),
            file("/etc/nats-other/x"),
        ];
        assert_eq!(mount_points(&files), ["/etc/nats", "/etc/nats-other"]);
    }
}
