//! Reconciles AssetGroup, NatsShard and ForwarderPool onto a platform.

pub mod cli;
pub mod controllers;
pub mod digest;
pub mod engine;
pub mod http;
pub mod kube;
pub mod metrics;
pub mod plain;
pub mod plan;
pub mod platform;
pub mod reconciler;
pub mod resources;
pub mod run;
pub mod status_table;
pub mod tls;
