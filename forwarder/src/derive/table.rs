//! The UNS map as the join sees it: which asset is in which group now. Pure.

use std::collections::HashMap;

use ofa_crds::groups::GroupNameError;
use ofa_crds::{GroupName, GroupingStrategy, UnsEntry};

/// A group's place in the table; it stays the same as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(u32);

impl GroupId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

struct Group {
    name: GroupName,
    assets: u64,
}

/// What a record of the map has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// A group that had no asset before.
    pub(crate) appeared: Option<GroupId>,
    /// A group that has lost its last asset.
    pub(crate) emptied: Option<GroupId>,
    /// Why the asset belongs to no group although the map names one.
    pub(crate) refused: Option<GroupNameError>,
}

/// Where an asset's records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// To its group.
    In(GroupId),
    /// Nowhere: it is registered, and belongs to no group.
    Nowhere,
    /// Nobody has registered it, as far as the map has been read.
    Unknown,
}

/// Assets and their groups.
pub(crate) struct JoinTable {
    strategy: Box<dyn GroupingStrategy>,
    /// Registered assets; without a group where they belong to none.
    assets: HashMap<Box<str>, Option<GroupId>>,
    grouped: usize,
    groups: Vec<Group>,
    by_name: HashMap<GroupName, GroupId>,
}

impl JoinTable {
    pub(crate) fn new(strategy: impl GroupingStrategy + 'static) -> Self {
        Self {
            strategy: Box::new(strategy),
            assets: HashMap::new(),
            grouped: 0,
            groups: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// Takes in what the map now says of an asset; `None` means that it is not registered.
    pub(crate) fn apply(&mut self, asset: &str, entry: Option<&UnsEntry>) -> Applied {
        let mut applied = Applied::default();
        let name = match entry.map(|entry| self.strategy.group_of(entry)) {
            None => None,
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                applied.refused = Some(error);
                None
            }
        };
        let group = name.map(|name| self.id_of(name));
        let before = match entry {
            Some(_) => self.assets.insert(asset.into(), group),
            None => self.assets.remove(asset),
        };
        let before = before.flatten();
        if before == group {
            return applied;
        }
        if let Some(left) = before {
            let left_group = &mut self.groups[left.index()];
            left_group.assets -= 1;
            self.grouped -= 1;
            applied.emptied = (left_group.assets == 0).then_some(left);
        }
        if let Some(joined) = group {
            let joined_group = &mut self.groups[joined.index()];
            joined_group.assets += 1;
            self.grouped += 1;
            applied.appeared = (joined_group.assets == 1).then_some(joined);
        }
        applied
    }

    /// Where an asset's records go.
    pub(crate) fn placement(&self, asset: &str) -> Placement {
        match self.assets.get(asset) {
            Some(Some(group)) => Placement::In(*group),
            Some(None) => Placement::Nowhere,
            None => Placement::Unknown,
        }
    }

    pub(crate) fn name(&self, group: GroupId) -> &GroupName {
        &self.groups[group.index()].name
    }

    /// The groups that have assets.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> {
        let numbered = (0..).zip(&self.groups);
        numbered.filter_map(|(id, group)| (group.assets > 0).then_some(GroupId(id)))
    }

    /// Assets that belong to a group.
    pub(crate) fn assets(&self) -> usize {
        self.grouped
    }

    fn id_of(&mut self, name: GroupName) -> GroupId {
        if let Some(&id) = self.by_name.get(&name) {
            return id;
        }
        // 2^32 names do not fit into memory.
        let id = GroupId(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        self.by_name.insert(name.clone(), id);
        self.groups.push(Group { name, assets: 0 });
        id
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ofa_crds::UnsLevel;
    use proptest::prelude::*;

    use super::*;

    fn table() -> JoinTable {
        JoinTable::new(UnsLevel::every_value("workcenter"))
    }

    fn at(workcenter: &str) -> UnsEntry {
        [("workcenter", workcenter)].into_iter().collect()
    }

    #[test]
    fn groups_appear_with_their_first_asset_and_go_with_their_last() {
        let mut table = table();
        let weld = table.apply("A1", Some(&at("Weld"))).appeared.unwrap();
        assert_eq!(table.apply("A2", Some(&at("Weld"))), Applied::default());
        assert_eq!(table.apply("A1", None), Applied::default());
        let moved = table.apply("A2", Some(&at("Paint")));
        assert_eq!(moved.emptied, Some(weld));
        assert_eq!(table.name(moved.appeared.unwrap()).as_str(), "Paint");
        assert_eq!(table.apply("A3", Some(&at("Weld"))).appeared, Some(weld));
    }

    #[test]
    fn a_value_that_cannot_name_a_group_is_told() {
        let mut table = table();
        table.apply("A1", Some(&at("Weld")));
        let applied = table.apply("A1", Some(&at("")));
        assert_eq!(applied.refused, Some(GroupNameError::Empty));
        assert_eq!(table.placement("A1"), Placement::Nowhere);
        assert_eq!(table.placement("A2"), Placement::Unknown);
    }

    proptest! {
        #[test]
        fn the_table_is_the_last_word_on_each_asset(changes in proptest::collection::vec(("[a-d]", proptest::option::of("[A-C]")), 0..60)) {
            let mut table = table();
            let mut plain: BTreeMap<String, String> = BTreeMap::new();
            for (asset, group) in changes {
                table.apply(&asset, group.as_deref().map(at).as_ref());
                match group {
                    Some(group) => plain.insert(asset, group),
                    None => plain.remove(&asset),
                };
            }
            for asset in ["a", "b", "c", "d"] {
                let group = match table.placement(asset) {
                    Placement::In(id) => Some(table.name(id).as_str()),
                    Placement::Nowhere | Placement::Unknown => None,
                };
                prop_assert_eq!(group, plain.get(asset).map(String::as_str));
            }
            let mut groups: Vec<_> = table.groups().map(|id| table.name(id).to_string()).collect();
            groups.sort();
            let mut plain: Vec<_> = plain.into_values().collect();
            plain.sort();
            plain.dedup();
            prop_assert_eq!(groups, plain);
        }
    }
}
