//! Assets and their groups, as the UNS map has them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GroupName, GroupNameError, GroupingStrategy, UnsEntry};

/// Every registered asset with its group.
pub struct Directory {
    strategy: Box<dyn GroupingStrategy>,
    assets: BTreeMap<Arc<str>, Option<GroupName>>,
    groups: BTreeMap<GroupName, usize>,
    caught_up: bool,
}

/// What is known of an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a group.
    Group(GroupName),
    /// Registered, and in no group.
    NoGroup,
    /// Not registered.
    Unknown,
}

impl Directory {
    /// Empty, for groups made in this way.
    #[must_use]
    pub fn new(strategy: impl GroupingStrategy + 'static) -> Self {
        Self {
            strategy: Box::new(strategy),
            assets: BTreeMap::new(),
            groups: BTreeMap::new(),
            caught_up: false,
        }
    }

    /// Takes in what the map now says of an asset; `None`: it is not registered.
    ///
    /// # Errors
    /// When the asset's level cannot name a group: it then is in none.
    pub fn apply(&mut self, asset: &str, entry: Option<&UnsEntry>) -> Result<(), GroupNameError> {
        let found = entry.map(|entry| self.strategy.group_of(entry));
        self.leave(asset);
        match found {
            None => Ok(()),
            Some(Ok(group)) => {
                if let Some(group) = &group {
                    *self.groups.entry(group.clone()).or_default() += 1;
                }
                self.assets.insert(asset.into(), group);
                Ok(())
            }
            Some(Err(error)) => {
                self.assets.insert(asset.into(), None);
                Err(error)
            }
        }
    }

    fn leave(&mut self, asset: &str) {
        let Some(Some(group)) = self.assets.remove(asset) else {
            return;
        };
        if let Some(count) = self.groups.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// Everything that stood in the map when reading began has been taken in.
    pub fn set_caught_up(&mut self) {
        self.caught_up = true;
    }

    /// Whether an asset that is not found is not there.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Where an asset belongs.
    #[must_use]
    pub fn place(&self, asset: &str) -> Place {
        match self.assets.get(asset) {
            Some(Some(group)) => Place::Group(group.clone()),
            Some(None) => Place::NoGroup,
            None => Place::Unknown,
        }
    }

    /// Whether any asset is in the group.
    #[must_use]
    pub fn has_group(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// The groups, and the number of assets in each.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, usize)> {
        self.groups.iter().map(|(group, count)| (group, *count))
    }

    /// Assets by name whose name holds `text`, whatever its casing, and that are in `group`, if one is named.
    pub fn search<'a>(
        &'a self,
        text: &str,
        group: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, Option<&'a GroupName>)> {
        let text = text.to_lowercase();
        self.assets
            .iter()
            .map(|(asset, group)| (asset.as_ref(), group.as_ref()))
            .filter(move |(asset, of)| {
                let in_group = group.is_none_or(|group| of.is_some_and(|of| of.as_str() == group));
                in_group && (text.is_empty() || asset.to_lowercase().contains(&text))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::UnsLevel;
    use super::*;

    fn directory(entries: &[(&str, &str)]) -> Directory {
        let mut directory = Directory::new(UnsLevel::every_value("workcenter"));
        for (asset, workcenter) in entries {
            let entry = [("workcenter", *workcenter)].into_iter().collect();
            directory.apply(asset, Some(&entry)).unwrap();
        }
        directory
    }

    fn groups(directory: &Directory) -> Vec<(&str, usize)> {
        let groups = directory.groups();
        groups
            .map(|(group, count)| (group.as_str(), count))
            .collect()
    }

    #[test]
    fn groups_are_those_of_the_assets() {
        let mut directory =
            directory(&[("A", "Weld"), ("B", "Weld"), ("C", "Paint"), ("A", "Paint")]);
        assert_eq!(groups(&directory), [("Paint", 2), ("Weld", 1)]);
        directory.apply("B", None).unwrap();
        assert_eq!(groups(&directory), [("Paint", 2)]);
        assert_eq!(directory.place("A"), Place::Group("Paint".parse().unwrap()));
        assert_eq!(directory.place("B"), Place::Unknown);
    }

    #[test]
    fn an_asset_without_usable_level_is_in_no_group() {
        let mut directory = directory(&[("A", "Weld")]);
        let nameless = [("workcenter", "")].into_iter().collect();
        assert!(directory.apply("A", Some(&nameless)).is_err());
        assert_eq!(directory.place("A"), Place::NoGroup);
        directory.apply("B", Some(&UnsEntry::default())).unwrap();
        assert_eq!(directory.place("B"), Place::NoGroup);
        assert_eq!(groups(&directory), []);
    }

    #[test]
    fn assets_are_found_by_part_of_their_name() {
        let directory = directory(&[("CNC-1", "Weld"), ("cnc-2", "Paint"), ("ROBOT", "Weld")]);
        let found = |text, group| {
            let found = directory.search(text, group);
            found.map(|(asset, _)| asset).collect::<Vec<_>>()
        };
        assert_eq!(found("cNc", None), ["CNC-1", "cnc-2"]);
        assert_eq!(found("", Some("Weld")), ["CNC-1", "ROBOT"]);
        assert_eq!(found("x", None), [""; 0]);
    }
}
