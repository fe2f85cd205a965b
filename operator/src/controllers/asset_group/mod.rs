//! `AssetGroup`: the derived streams of a level.

mod status;
pub mod validate;

use ofa_crds::api::{AssetGroup, AssetGroupStatus};

use self::validate::validate;
use super::conditions::Outcome;
use crate::platform::DeploymentPlatform;

/// Says what a group is at. No stream engine is part of this operator yet, which the condition names.
pub fn reconcile(group: &AssetGroup, platform: &dyn DeploymentPlatform) -> AssetGroupStatus {
    let outcome = match validate(group) {
        Ok(valid) => Outcome::stalled(
            "Unsupported",
            format!(
                "the {} platform has no stream engine {} for level {}; remove the AssetGroup, the rest works without it",
                platform.name(),
                valid.engine,
                valid.level
            ),
        ),
        Err(invalid) => Outcome::stalled("Invalid", invalid.to_string()),
    };
    status::status(group, &outcome)
}
