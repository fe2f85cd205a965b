//! The `id:` of an event: one text that resumes every asset a client watches.
//!
//! The service reads all partitions of the group's topic as one sequence, and every client gets its events in
//! that sequence. So how far the sequence has come on *each* partition says all that a client has seen,
//! whatever assets it watches and on whichever partitions these are. Written
//! `<topic>/<partition>/<offset>,<partition>/<offset>`, partitions in order, each with the offset of the last
//! record seen; a partition that is not named is one of which nothing has been seen, so partitions that are
//! added later are read from their beginning. For a topic of one partition this is a
//! [`Cursor`](ofa_crds::Cursor). The text is valid at any replica of the service, and after its restart.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use ofa_crds::Cursor;
use thiserror::Error;

/// Text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "Last-Event-ID must be an id that this service gave: <topic>/<partition>/<offset>,<partition>/<offset>"
)]
pub(super) struct PositionError;

/// A partition that no topic has: Kafka itself cannot run with so many.
const MAX_PARTITIONS: u32 = 100_000;

/// How far the sequence of a topic's records has come: for each partition the offset that comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    topic: Arc<str>,
    next: Vec<u64>,
}

impl Position {
    /// At these offsets, one for each partition.
    #[must_use]
    pub(super) fn new(topic: impl Into<Arc<str>>, next: Vec<u64>) -> Self {
        let topic = topic.into();
        Self { topic, next }
    }

    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// When the text is anything else.
    pub(super) fn parse(text: &str) -> Result<Self, PositionError> {
        let (topic, parts) = text.split_once('/').unwrap_or((text, ""));
        let mut position = Self::new(topic, Vec::new());
        let parts = parts.split(',').filter(|part| !part.is_empty());
        for part in parts {
            let cursor: Cursor = format!("{topic}/{part}")
                .parse()
                .map_err(|_| PositionError)?;
            if !Self::has_partition(cursor.partition) || cursor.offset == u64::MAX {
                return Err(PositionError);
            }
            position.saw(cursor.partition, cursor.offset);
        }
        if position.to_string() == text && !topic.is_empty() {
            Ok(position)
        } else {
            Err(PositionError)
        }
    }

    /// Whether any topic can have this partition.
    #[must_use]
    pub(super) fn has_partition(partition: u32) -> bool {
        partition < MAX_PARTITIONS
    }

    /// How many partitions are known of.
    #[must_use]
    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.next.len()).unwrap_or(u32::MAX)
    }

    /// The topic it is of.
    #[must_use]
    pub(super) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The offset that comes next on a partition.
    #[must_use]
    pub(super) fn next(&self, partition: u32) -> u64 {
        self.next.get(index(partition)).copied().unwrap_or(0)
    }

    /// Everything below `next` has been seen on this partition.
    pub(super) fn advance(&mut self, partition: u32, next: u64) {
        let index = index(partition);
        if self.next.len() <= index {
            self.next.resize(index + 1, 0);
        }
        self.next[index] = self.next[index].max(next);
    }

    /// The record at `offset` has been seen.
    pub(super) fn saw(&mut self, partition: u32, offset: u64) {
        self.advance(partition, offset.saturating_add(1));
    }
}

fn index(partition: u32) -> usize {
    usize::try_from(partition).unwrap_or(usize::MAX)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        let mut separator = '/';
        for (partition, next) in self.next.iter().enumerate() {
            if let Some(last) = next.checked_sub(1) {
                f.write_char(separator)?;
                write!(f, "{partition}/{last}")?;
                separator = ',';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_topic_of_one_partition_has_plain_cursors() {
        let mut position = Position::new("t", vec![0]);
        assert_eq!(position.to_string(), "t");
        position.saw(0, 41);
        assert_eq!(position.to_string(), "t/0/41");
        assert!(position.to_string().parse::<Cursor>().is_ok());
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for bad in [
            "",
            "/0/1",
            "t/",
            "t/0",
            "t/0/",
            "t/1/2,0/3",
            "t/0/1,",
            "t/0/01",
            "t/0/1,0/2",
            "t/0/18446744073709551615",
            "t/4000000000/1",
        ] {
            assert_eq!(Position::parse(bad), Err(PositionError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_position_reads_back_as_written(next in proptest::collection::vec(0..u64::MAX, 0..20)) {
            let position = Position::new("a.topic_of-ours", next.clone());
            let read = Position::parse(&position.to_string()).unwrap();
            for (partition, next) in next.into_iter().enumerate() {
                prop_assert_eq!(read.next(u32::try_from(partition).unwrap()), next);
            }
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in ".{0,60}") {
            let _ = Position::parse(&text);
        }
    }
}
