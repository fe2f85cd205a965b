//! Groups of assets: how the group of an asset is found, and what a group's objects are called.
//!
//! A [`GroupingStrategy`] looks at an asset's entry of the UNS map ([`UnsEntry`]) and says its
//! [`GroupName`]; another strategy is one type more. A group's name is any text, and [`GroupName`] maps it
//! to the names of its stream, topic, consumer group and Service (rule: [`GroupName::stream`] and the
//! module's `names.rs`), so that two groups never share one. All of it is pure.

mod directory;
mod names;
mod uns_map;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use directory::{Directory, Place};
pub use uns_map::{UNS_MAP_TOPIC, UnsEntry, UnsMapError};

/// Text that cannot name a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupNameError {
    /// No text.
    #[error(
        "a group's name must not be empty; leave the level out for assets that belong to no group"
    )]
    Empty,
    /// Too much text.
    #[error(
        "a group's name may have {max} bytes at most, this one has {0}; give the level a shorter value",
        max = GroupName::MAX_LEN
    )]
    TooLong(usize),
}

/// The name of a group: any text that is not empty, case and white space kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

impl GroupName {
    /// Longest name in bytes: 1024 characters of the resource's schema, each of up to four bytes.
    pub const MAX_LEN: usize = 4096;

    /// The name as it stands in the UNS map.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        match text.len() {
            0 => Err(GroupNameError::Empty),
            length if length > Self::MAX_LEN => Err(GroupNameError::TooLong(length)),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(text: String) -> Result<Self, GroupNameError> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says to which group an asset belongs.
pub trait GroupingStrategy: Send + Sync {
    /// The group of an asset by its entry of the UNS map; `None` when it belongs to none.
    ///
    /// # Errors
    /// When what the entry says cannot name a group: the asset then has none, and somebody should know.
    fn group_of(&self, entry: &UnsEntry) -> Result<Option<GroupName>, GroupNameError>;
}

/// By the value of one level of the Unified Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsLevel {
    level: String,
    values: Vec<GroupName>,
}

impl UnsLevel {
    /// A group for every value of `level`.
    #[must_use]
    pub fn every_value(level: impl Into<String>) -> Self {
        Self::only(level, Vec::new())
    }

    /// Groups for these values of `level` alone; for every value when none is given.
    #[must_use]
    pub fn only(level: impl Into<String>, values: Vec<GroupName>) -> Self {
        Self {
            level: level.into(),
            values,
        }
    }

    /// The level's name. Case counts, as in ksqlDB's `uns_levels['workcenter']`.
    #[must_use]
    pub fn level(&self) -> &str {
        &self.level
    }

    /// The values asked for; none means all.
    #[must_use]
    pub fn values(&self) -> &[GroupName] {
        &self.values
    }
}

impl GroupingStrategy for UnsLevel {
    fn group_of(&self, entry: &UnsEntry) -> Result<Option<GroupName>, GroupNameError> {
        let Some(value) = entry.level(&self.level) else {
            return Ok(None);
        };
        let name: GroupName = value.parse()?;
        let wanted = self.values.is_empty() || self.values.contains(&name);
        Ok(wanted.then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(levels: &[(&str, &str)]) -> UnsEntry {
        levels.iter().copied().collect()
    }

    fn name(text: &str) -> GroupName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_any_text_but_none() {
        assert_eq!("".parse::<GroupName>(), Err(GroupNameError::Empty));
        let long = "x".repeat(GroupName::MAX_LEN + 1);
        assert_eq!(
            long.parse::<GroupName>(),
            Err(GroupNameError::TooLong(4097))
        );
        assert_eq!(name(" ' ").as_str(), " ' ");
    }

    #[test]
    fn every_value_of_the_level_is_a_group() {
        let strategy = UnsLevel::every_value("workcenter");
        let weld = entry(&[("workcenter", "Weld"), ("inc", "OF")]);
        assert_eq!(strategy.group_of(&weld), Ok(Some(name("Weld"))));
        assert_eq!(strategy.group_of(&entry(&[("inc", "OF")])), Ok(None));
        let other_case = entry(&[("WORKCENTER", "Weld")]);
        assert_eq!(strategy.group_of(&other_case), Ok(None));
        let empty = entry(&[("workcenter", "")]);
        assert_eq!(strategy.group_of(&empty), Err(GroupNameError::Empty));
    }

    #[test]
    fn named_values_alone_are_groups() {
        let strategy = UnsLevel::only("workcenter", vec![name("Weld")]);
        for (value, group) in [("Weld", Some("Weld")), ("weld", None), ("Weld ", None)] {
            let found = strategy.group_of(&entry(&[("workcenter", value)]));
            assert_eq!(found, Ok(group.map(name)), "{value:?}");
        }
    }
}
