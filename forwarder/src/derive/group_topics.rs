//! The topics of the groups, ready to be written to.

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::producer::ThreadedProducer;
use rdkafka::types::RDKafkaErrorCode;

use super::enqueue::DerivedTopic;
use super::table::{GroupId, JoinTable};
use super::topics::Topics;
use super::writer::Context;

/// One topic for each group that has assets.
pub(crate) struct GroupTopics {
    topics: Topics,
    /// The topic of the only group, where it is not the usual one.
    named: Option<String>,
    /// By [`GroupId`].
    ready: Vec<Option<DerivedTopic>>,
    /// Groups whose topics are not known to be there.
    missing: BTreeSet<usize>,
}

impl GroupTopics {
    pub(crate) fn new(topics: Topics, named: Option<String>) -> Self {
        Self {
            topics,
            named,
            ready: Vec::new(),
            missing: BTreeSet::new(),
        }
    }

    /// A group needs its topic.
    pub(crate) fn want(&mut self, group: GroupId) {
        self.missing.insert(group.index());
    }

    pub(crate) fn are_ready(&self) -> bool {
        self.missing.is_empty()
    }

    /// Creates what is missing.
    pub(crate) fn ensure(
        &mut self,
        table: &JoinTable,
        producer: &Arc<ThreadedProducer<Context>>,
    ) -> Result<(), KafkaError> {
        let wanted = |group: &GroupId| self.missing.contains(&group.index());
        let groups: Vec<GroupId> = table.groups().filter(wanted).collect();
        let names: Vec<String> = groups
            .iter()
            .map(|group| {
                self.named
                    .clone()
                    .unwrap_or_else(|| table.name(*group).topic())
            })
            .collect();
        let partitions = self.topics.ensure(&names)?;
        for ((group, name), partitions) in groups.iter().zip(&names).zip(partitions) {
            let refused = KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTopic);
            let topic = DerivedTopic::new(producer, name, partitions).ok_or(refused)?;
            let index = group.index();
            if self.ready.len() <= index {
                self.ready.resize_with(index + 1, || None);
            }
            self.ready[index] = Some(topic);
        }
        self.missing.clear();
        Ok(())
    }

    pub(crate) fn get(&self, group: GroupId) -> Option<&DerivedTopic> {
        self.ready.get(group.index())?.as_ref()
    }
}
