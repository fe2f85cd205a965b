//! Resources from a folder of YAML files: what the API server is on Kubernetes.

mod bounds;
mod folder;
mod manifest;
mod parse;
mod store;

pub use folder::{Folder, Snapshot};
pub use manifest::{Kind, Manifest, ObjectKey};
pub use parse::{Document, Problem, parse_file, parse_file_in};
pub use store::{PROBLEMS_FILE, RESOURCES_DIR, Store, read_objects};
