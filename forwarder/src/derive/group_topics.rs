//! The topics of the groups and the changelog, ready to be written to.

use std::collections::BTreeSet;

use rdkafka::error::KafkaError;

use super::changelog;
use super::table::{GroupId, JoinTable};
use super::topics::Topics;
use super::writer::{DerivedTopic, Writer};
use crate::slot::slot;

/// One topic for each group that has assets.
pub(crate) struct GroupTopics {
    topics: Topics,
    /// The topic of the only group, where it is not the usual one.
    named: Option<String>,
    changelog: String,
    changelog_ready: Option<DerivedTopic>,
    /// By [`GroupId`].
    ready: Vec<Option<DerivedTopic>>,
    /// Groups whose topics are not known to be there.
    missing: BTreeSet<usize>,
}

impl GroupTopics {
    pub(crate) fn new(topics: Topics, named: Option<String>, changelog: String) -> Self {
        Self {
            topics,
            named,
            changelog,
            changelog_ready: None,
            ready: Vec::new(),
            missing: BTreeSet::new(),
        }
    }

    /// A group needs its topic.
    pub(crate) fn want(&mut self, group: GroupId) {
        self.missing.insert(group.index());
    }

    /// Each topic may have to be created anew.
    pub(crate) fn want_all(&mut self, table: &JoinTable) {
        self.missing.extend(table.groups().map(GroupId::index));
        self.changelog_ready = None;
    }

    pub(crate) fn are_ready(&self) -> bool {
        self.missing.is_empty() && self.changelog_ready.is_some()
    }

    /// The name of a group's topic.
    pub(crate) fn name(&self, table: &JoinTable, group: GroupId) -> String {
        let named = self.named.clone();
        named.unwrap_or_else(|| table.name(group).topic())
    }

    /// Creates what is missing.
    pub(crate) fn ensure(
        &mut self,
        table: &JoinTable,
        writer: &mut Writer,
    ) -> Result<(), KafkaError> {
        let wanted = |group: &GroupId| self.missing.contains(&group.index());
        let groups: Vec<GroupId> = table.groups().filter(wanted).collect();
        let name = |group: &GroupId| self.name(table, *group);
        let names: Vec<String> = groups.iter().map(name).collect();
        if self.changelog_ready.is_none() {
            self.topics.ensure_changelog(&self.changelog)?;
            self.changelog_ready = Some(writer.open(&self.changelog, changelog::PARTITIONS));
        }
        let partitions = self.topics.ensure(&names)?;
        for ((group, name), partitions) in groups.iter().zip(&names).zip(partitions) {
            let topic = writer.open(name, partitions);
            *slot(&mut self.ready, group.index()) = Some(topic);
        }
        self.missing.clear();
        Ok(())
    }

    pub(crate) fn changelog(&self) -> Option<DerivedTopic> {
        self.changelog_ready
    }

    pub(crate) fn get(&self, group: GroupId) -> Option<DerivedTopic> {
        *self.ready.get(group.index())?
    }
}
