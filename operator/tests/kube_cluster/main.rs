//! The operator against a real Kubernetes control plane: everything is real but the pods, in which nothing runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../changes/mod.rs"]
mod changes;
mod cluster;
#[macro_use]
#[path = "../conformance/mod.rs"]
mod conformance;
mod kafka;
mod kubelet;
mod meter;
mod nodes;
mod operator;

mod autoscale;
mod chart;
mod config;
mod conforms;
mod crds;
mod deletion;
mod drift;
mod figures;
mod gitops;
mod group;
mod idle;
mod kill;
mod leader;
mod pool;
mod release;
mod rights;
mod shard;
mod upgrade;
