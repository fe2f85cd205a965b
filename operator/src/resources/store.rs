//! The objects in force: the last good version of each, with what an API server would add to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::folder::Snapshot;
use super::manifest::{Kind, Manifest, ObjectKey};
use super::parse::{Document, Problem, parse_file};
use crate::platform::local::store::{read_json, write_json};

/// Directory of the objects in the state directory.
pub const RESOURCES_DIR: &str = "resources";

/// File with what is wrong in the folder.
pub const PROBLEMS_FILE: &str = "problems.json";

/// An object in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    /// File it came from.
    file: String,
    manifest: Manifest,
}

/// All objects in force.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    objects: BTreeMap<ObjectKey, Stored>,
    problems: Vec<Problem>,
}

impl Store {
    /// Reads what an earlier operator left in the state directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(state: &Path) -> io::Result<Self> {
        let stored = read_stored(state)?;
        Ok(Self {
            directory: state.to_owned(),
            objects: stored.into_iter().map(|s| (s.manifest.key(), s)).collect(),
            problems: Vec::new(),
        })
    }

    /// Takes in the folder. What is bad in it changes nothing: the last good version stays in force.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn take(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let mut problems = snapshot.problems.clone();
        let mut documents: BTreeMap<ObjectKey, Document> = BTreeMap::new();
        for (file, text) in &snapshot.files {
            for parsed in parse_file(file, text) {
                match parsed {
                    Ok(document) => {
                        problems.extend(self.refusal(&document, &documents));
                        documents.entry(document.manifest.key()).or_insert(document);
                    }
                    Err(problem) => problems.push(problem),
                }
            }
        }
        let refused: BTreeSet<ObjectKey> =
            problems.iter().filter_map(|p| p.object.clone()).collect();
        self.mark_deleted(snapshot, &documents, &problems)?;
        for (key, document) in documents {
            if !refused.contains(&key) {
                self.put(&key, document)?;
            }
        }
        self.report(problems)
    }

    /// Why a well-formed document may not be taken.
    fn refusal(
        &self,
        document: &Document,
        others: &BTreeMap<ObjectKey, Document>,
    ) -> Option<Problem> {
        let key = document.manifest.key();
        let twice = others.get(&key).map(|other| {
            format!(
                "the object is also in {}:{}; remove one of the two",
                other.file, other.line
            )
        });
        let old = self.objects.get(&key).map(|stored| &stored.manifest);
        let renamed = match (old, &document.manifest) {
            (Some(Manifest::NatsShard(old)), Manifest::NatsShard(new)) => {
                (old.spec.ring_name(&key.name) != new.spec.ring_name(&key.name)).then(|| {
                    "spec.clusterName decides which assets the shard has and cannot change; create a shard of the new name and delete this one".to_owned()
                })
            }
            _ => None,
        };
        twice.or(renamed).map(|reason| Problem {
            file: document.file.clone(),
            line: document.line,
            object: Some(key),
            reason,
        })
    }

    /// An object is deleted when it stands nowhere any more, and no unreadable document could be it.
    fn mark_deleted(
        &mut self,
        snapshot: &Snapshot,
        documents: &BTreeMap<ObjectKey, Document>,
        problems: &[Problem],
    ) -> io::Result<()> {
        if !snapshot.complete {
            return Ok(());
        }
        let may_be = |key: &ObjectKey, file: &str| {
            problems.iter().any(|problem| match &problem.object {
                Some(object) => object == key,
                None => problem.file == file,
            })
        };
        let gone: Vec<ObjectKey> = self
            .objects
            .iter()
            .filter(|(key, stored)| !documents.contains_key(key) && !may_be(key, &stored.file))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(stored) = self.objects.get_mut(&key)
                && stored.manifest.meta().deletion_timestamp.is_none()
            {
                info!(object = %key, "is no longer in the folder and goes");
                stored.manifest.meta_mut().deletion_timestamp = Some(Time(Timestamp::now()));
                self.save(&key)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &ObjectKey, document: Document) -> io::Result<()> {
        let Document {
            file, mut manifest, ..
        } = document;
        match self.objects.remove(key) {
            Some(old) => {
                let same = old.manifest.same_spec(&manifest);
                let generation = old.manifest.meta().generation.unwrap_or(0) + i64::from(!same);
                let (uid, created) = (
                    old.manifest.meta().uid.clone(),
                    old.manifest.meta().creation_timestamp.clone(),
                );
                let meta = manifest.meta_mut();
                meta.uid = uid;
                meta.creation_timestamp = created;
                meta.generation = Some(generation);
                manifest.take_status(old.manifest.clone());
                let stored = Stored { file, manifest };
                let changed = stored != old;
                self.objects.insert(key.clone(), stored);
                if !changed {
                    return Ok(());
                }
                info!(object = %key, generation, "changed");
            }
            None => {
                let meta = manifest.meta_mut();
                meta.uid = Some(new_uid());
                meta.creation_timestamp = Some(Time(Timestamp::now()));
                meta.generation = Some(1);
                info!(object = %key, "is new");
                self.objects.insert(key.clone(), Stored { file, manifest });
            }
        }
        self.save(key)
    }

    fn report(&mut self, mut problems: Vec<Problem>) -> io::Result<()> {
        problems.dedup();
        for problem in problems
            .iter()
            .filter(|problem| !self.problems.contains(problem))
        {
            error!("{problem} (nothing of it is applied; the last good version stays in force)");
        }
        write_json(&self.directory.join(PROBLEMS_FILE), &problems)?;
        self.problems = problems;
        Ok(())
    }

    /// All objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Manifest> {
        let of_kind = self.objects.iter().filter(move |(key, _)| key.kind == kind);
        of_kind.map(|(_, stored)| &stored.manifest)
    }

    /// All objects in the order in which they are reconciled.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.objects.keys().cloned().collect()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Manifest> {
        self.objects.get(key).map(|stored| &stored.manifest)
    }

    /// Replaces an object's status by that of `manifest`; writes only what changed.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn set_status(&mut self, manifest: Manifest) -> io::Result<()> {
        let key = manifest.key();
        let Some(stored) = self.objects.get_mut(&key) else {
            return Ok(());
        };
        let before = stored.manifest.clone();
        stored.manifest.take_status(manifest);
        if stored.manifest == before {
            Ok(())
        } else {
            self.save(&key)
        }
    }

    /// Forgets an object that is deleted and of which nothing is left.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn forget(&mut self, key: &ObjectKey) -> io::Result<()> {
        info!(object = %key, "is gone");
        self.objects.remove(key);
        match fs::remove_file(self.file(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn save(&self, key: &ObjectKey) -> io::Result<()> {
        match self.objects.get(key) {
            Some(stored) => write_json(&self.file(key), stored),
            None => Ok(()),
        }
    }

    fn file(&self, key: &ObjectKey) -> PathBuf {
        let name = format!("{}.{}.{}.json", key.kind.name(), key.namespace, key.name);
        self.directory.join(RESOURCES_DIR).join(name)
    }
}

/// The objects in a state directory, by kind, namespace and name.
///
/// # Errors
/// When they cannot be read.
pub fn read_objects(state: &Path) -> io::Result<Vec<Manifest>> {
    let mut objects: Vec<Manifest> = read_stored(state)?
        .into_iter()
        .map(|s| s.manifest)
        .collect();
    objects.sort_by_key(Manifest::key);
    Ok(objects)
}

fn read_stored(state: &Path) -> io::Result<Vec<Stored>> {
    let directory = state.join(RESOURCES_DIR);
    fs::create_dir_all(&directory)?;
    let mut stored = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            stored.extend(read_json(&path)?);
        }
    }
    Ok(stored)
}

/// As random as Kubernetes' own.
fn new_uid() -> String {
    let id: [u8; 16] = rand::random();
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
