//! What stood on a topic when its reading began, and is not read yet.
//!
//! That the end of a partition is reached, Kafka's client tells only when a broker has had nothing to give. On a topic that is written to
//! all the time that may take minutes, or for ever; so a record at the end that was, or behind it, counts too. A quiet topic may end with the
//! marks of transactions, which are no records: there the client's word is needed.

use std::collections::BTreeMap;

/// Partitions that are not read up to where they ended.
#[derive(Debug, Default)]
pub(crate) struct Unread(BTreeMap<u32, u64>);

impl Unread {
    /// Of each partition, in order, where reading begins and the offset that came next when that was decided.
    pub(crate) fn new(spans: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let unread = (0..).zip(spans).filter(|(_, (start, end))| start < end);
        Self(
            unread
                .map(|(partition, (_, end))| (partition, end))
                .collect(),
        )
    }

    /// A record was read.
    pub(crate) fn read(&mut self, partition: u32, offset: u64) {
        if self.0.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            self.0.remove(&partition);
        }
    }

    /// Kafka's client says that there is nothing more for the moment.
    pub(crate) fn ended(&mut self, partition: i32) {
        if let Ok(partition) = u32::try_from(partition) {
            self.0.remove(&partition);
        }
    }

    /// Whether everything is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_read_by_its_last_record_a_later_one_or_the_client_s_word() {
        let mut unread = Unread::new([(0, 5), (2, 4), (3, 9), (7, 7)]);
        unread.read(0, 3);
        unread.read(0, 4);
        unread.read(1, 8);
        assert!(!unread.is_empty());
        unread.read(3, 0);
        unread.ended(2);
        assert!(unread.is_empty());
        assert!(Unread::new([(0, 0), (5, 5)]).is_empty());
    }
}
