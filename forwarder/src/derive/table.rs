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

/// What is known of an asset.
#[derive(Debug, Clone, Copy)]
struct Asset {
    placement: Placement,
    /// The group whose topic has the asset's last record, where that is known.
    written_to: Option<GroupId>,
}

impl Asset {
    const UNKNOWN: Self = Self {
        placement: Placement::Unknown,
        written_to: None,
    };
}

impl Placement {
    fn group(self) -> Option<GroupId> {
        match self {
            Self::In(group) => Some(group),
            Self::Nowhere | Self::Unknown => None,
        }
    }
}

/// Assets and their groups.
pub(crate) struct JoinTable {
    strategy: Box<dyn GroupingStrategy>,
    assets: HashMap<Box<str>, Asset>,
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
        let placement = match (entry, group) {
            (None, _) => Placement::Unknown,
            (Some(_), None) => Placement::Nowhere,
            (Some(_), Some(group)) => Placement::In(group),
        };
        let before = self.place(asset, placement).group();
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

    /// Puts an asset somewhere, and tells where it was.
    fn place(&mut self, asset: &str, placement: Placement) -> Placement {
        if let Some(known) = self.assets.get_mut(asset) {
            let before = std::mem::replace(&mut known.placement, placement);
            if placement == Placement::Unknown && known.written_to.is_none() {
                self.assets.remove(asset);
            }
            return before;
        }
        if placement != Placement::Unknown {
            let known = Asset {
                placement,
                ..Asset::UNKNOWN
            };
            self.assets.insert(asset.into(), known);
        }
        Placement::Unknown
    }

    /// Where an asset's records go, and the group whose topic has its last record, where that is known.
    pub(crate) fn placement(&self, asset: &str) -> (Placement, Option<GroupId>) {
        let asset = self.assets.get(asset).unwrap_or(&Asset::UNKNOWN);
        (asset.placement, asset.written_to)
    }

    /// Notes the group whose topic has an asset's last record, and tells which one had it before.
    pub(crate) fn note_written(&mut self, asset: &str, group: Option<GroupId>) -> Option<GroupId> {
        match self.assets.get_mut(asset) {
            Some(known) => std::mem::replace(&mut known.written_to, group),
            None => {
                let known = Asset {
                    written_to: group,
                    ..Asset::UNKNOWN
                };
                self.assets.insert(asset.into(), known);
                None
            }
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

    /// A group by its name.
    pub(crate) fn id_of(&mut self, name: GroupName) -> GroupId {
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
        assert_eq!(table.placement("A1").0, Placement::Nowhere);
        assert_eq!(table.placement("A2").0, Placement::Unknown);
    }

    #[test]
    fn what_was_written_last_outlives_a_registration() {
        let mut table = table();
        table.apply("A1", Some(&at("Weld")));
        let weld = table.id_of("Weld".parse().unwrap());
        assert_eq!(table.note_written("A1", Some(weld)), None);
        table.apply("A1", None);
        assert_eq!(table.placement("A1"), (Placement::Unknown, Some(weld)));
        table.apply("A1", Some(&at("Paint")));
        let paint = table.id_of("Paint".parse().unwrap());
        assert_eq!(table.placement("A1"), (Placement::In(paint), Some(weld)));
        assert_eq!(table.note_written("A1", Some(paint)), Some(weld));
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
                let group = table.placement(asset).0.group();
                let group = group.map(|id| table.name(id).as_str());
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
