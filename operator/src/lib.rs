//! Reconciles AssetGroup, NatsShard and ForwarderPool onto a platform.

pub mod platform;
pub mod tls;
