//! The folder itself, looked at again and again: works with every file system, mounts and editors included.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::parse::Problem;

/// The folder's YAML files and what is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Content by file name.
    pub files: BTreeMap<String, String>,
    /// Files that cannot be read, and the folder itself if it cannot be.
    pub problems: Vec<Problem>,
    /// Whether the folder's list of files could be had.
    pub complete: bool,
}

/// A folder that is watched.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    seen: Option<Snapshot>,
    taken: Option<Snapshot>,
}

impl Folder {
    /// Watches `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: None,
            taken: None,
        }
    }

    /// The folder as it is now.
    #[must_use]
    pub fn read(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut problem = |file: String, error: &std::io::Error| {
            snapshot.problems.push(Problem {
                file,
                line: 1,
                object: None,
                reason: format!(
                    "cannot be read: {error}; what was read from it before stays in force"
                ),
            });
        };
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) => {
                problem(self.path.display().to_string(), &error);
                return snapshot;
            }
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let yaml = |path: &PathBuf| {
            path.extension()
                .is_some_and(|end| end == "yaml" || end == "yml")
        };
        for path in paths.filter(yaml) {
            let name = path.display().to_string();
            match fs::read_to_string(&path) {
                Ok(text) => {
                    snapshot.files.insert(name, text);
                }
                Err(error) => problem(name, &error),
            }
        }
        snapshot.problems.sort_by(|a, b| a.file.cmp(&b.file));
        snapshot.complete = true;
        snapshot
    }

    /// The folder, if it is another than the one taken last and the same as at the last look: a file
    /// that is just being written is not taken half-written.
    pub fn poll(&mut self) -> Option<Snapshot> {
        let now = self.read();
        let settled = self.seen.as_ref() == Some(&now);
        let new = self.taken.as_ref() != Some(&now);
        self.seen = Some(now.clone());
        if settled && new {
            self.taken = Some(now.clone());
            return Some(now);
        }
        None
    }
}
