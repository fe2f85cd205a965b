//! What is said about a group.

use jiff::Timestamp;
use ofa_crds::api::{AssetGroup, AssetGroupStatus, ConditionStatus, READY};

use crate::controllers::conditions::{Outcome, merge};

/// The status after `outcome`.
pub(super) fn status(group: &AssetGroup, outcome: &Outcome) -> AssetGroupStatus {
    let old = group.status.clone().unwrap_or_default();
    let generation = group.metadata.generation;
    AssetGroupStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, outcome, generation, Timestamp::now()),
        ..old
    }
}

/// Ready once, a group counts as serving for as long as one instance does.
pub(super) fn serves(group: &AssetGroup) -> bool {
    let conditions = group.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|c| c.kind == READY && c.status == ConditionStatus::True)
}
