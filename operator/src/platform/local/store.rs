//! The state directory: one operator at a time, files replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// How long the lock of an operator that has just gone may be held: a program that it was about to start has it too until it is
/// executed, and then no more.
const HANDED_ON: Duration = Duration::from_millis(500);

/// How often it is looked whether it is free.
const LOOK: Duration = Duration::from_millis(10);

/// A state directory that cannot be used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// Another operator works on it.
    #[error(
        "another operator is using the state directory {0}; stop it first, or choose another with --state-dir"
    )]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error(
        "cannot use the state directory {path}: {source}; choose a writable one with --state-dir"
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates the directory if need be, readable by its owner only, and locks it.
    ///
    /// # Errors
    /// When another operator has it or it cannot be written.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let failed = |source| StateDirError::Io {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        let asked = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) if asked.elapsed() < HANDED_ON => {
                    std::thread::sleep(LOOK);
                }
                Err(TryLockError::WouldBlock) => return Err(StateDirError::InUse(path)),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Replaces a file as a whole: after a crash it holds the old or the new content.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&new, path)
}

/// Writes a value as JSON, readable by the owner only.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    write_file(path, &serde_json::to_vec_pretty(value)?, 0o600)
}

/// Reads a JSON file; `None` when there is none.
///
/// # Errors
/// When it cannot be read or is not what it should be.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of the directories in a directory, sorted; none where it does not exist.
#[must_use]
pub fn directories(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
