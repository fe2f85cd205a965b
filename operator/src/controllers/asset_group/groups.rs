//! Which groups a resource has, and which it had.

use std::collections::BTreeMap;

use ofa_crds::GroupName;
use ofa_crds::api::AssetGroup;

use super::validate::ValidGroup;
use crate::engine::Group;

/// The groups of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Those it has, by name.
    pub(super) present: Vec<Group>,
    /// Those it had and that are not removed yet.
    pub(super) leaving: Vec<Group>,
}

/// The groups by what the map says, if it was read, and by what was known before.
pub(super) fn groups(
    resource: &AssetGroup,
    valid: &ValidGroup,
    found: Option<&BTreeMap<GroupName, u64>>,
) -> Option<Groups> {
    let assets = |name: &GroupName| found.and_then(|all| all.get(name)).copied().unwrap_or(0);
    let present: Vec<Group> = match (&valid.value, found) {
        (Some(value), _) => vec![valid.group(value, assets(value))],
        (None, Some(found)) => found
            .iter()
            .map(|(name, &assets)| valid.group(name, assets))
            .collect(),
        // Until the map was read to its end nobody can say which groups are gone.
        (None, None) => return None,
    };
    let mut leaving = before(resource, valid);
    leaving.retain(|old| !present.iter().any(|group| group.topic == old.topic));
    Some(Groups { present, leaving })
}

/// The groups that the status tells of.
pub(super) fn before(resource: &AssetGroup, valid: &ValidGroup) -> Vec<Group> {
    let status = resource.status.iter();
    let known = status.flat_map(|status| &status.groups);
    known
        .filter_map(|known| {
            let name: GroupName = known.name.parse().ok()?;
            Some(Group {
                topic: known.topic.clone(),
                ..valid.group(&name, 0)
            })
        })
        .collect()
}
