//! From a spec to what can be built.

use ofa_crds::api::{AssetGroup, StreamEngineKind};
use thiserror::Error;

/// A spec that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A stream's name without the one group it is for.
    #[error(
        "spec.stream.name and topic name one group's stream; set spec.grouping.value with them, or leave them out"
    )]
    NameWithoutValue,
    /// No level.
    #[error(
        "spec.grouping.level must name a level of the Unified Namespace, workcenter for example"
    )]
    NoLevel,
}

/// A group that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidGroup {
    /// Level of the Unified Namespace.
    pub level: String,
    /// The stream engine's name in manifests.
    pub engine: &'static str,
}

/// Parses a group's spec.
///
/// # Errors
/// With what to change.
pub fn validate(group: &AssetGroup) -> Result<ValidGroup, Invalid> {
    let spec = &group.spec;
    if spec.grouping.level.trim().is_empty() {
        return Err(Invalid::NoLevel);
    }
    let named = spec.stream.name.is_some() || spec.stream.topic.is_some();
    if named && spec.grouping.value.is_none() {
        return Err(Invalid::NameWithoutValue);
    }
    Ok(ValidGroup {
        level: spec.grouping.level.clone(),
        engine: match spec.stream.engine {
            StreamEngineKind::KsqlDb => "ksqlDB",
            StreamEngineKind::Native => "Native",
        },
    })
}
