//! Plain Kubernetes manifests beside our own kinds: a typed subset of Deployment, StatefulSet and Service,
//! so that a folder holds a whole factory and `kubectl apply` takes the very same files.

mod convert;
mod pod;
mod types;

pub use convert::{Plain, PlainError, workload};
pub use pod::*;
pub use types::*;
