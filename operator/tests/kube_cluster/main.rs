//! The operator against a real Kubernetes control plane: everything is real but the pods, in which nothing runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cluster;
mod kafka;
mod kubelet;
mod nodes;
mod operator;

mod autoscale;
mod chart;
mod config;
mod crds;
mod deletion;
mod drift;
mod gitops;
mod idle;
mod kill;
mod leader;
mod pool;
mod shard;
mod upgrade;
