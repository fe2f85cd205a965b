//! A reader of part of the topic, outside the group: for shards that have to catch up.

use super::error::SourceError;
use super::source::SourceSettings;
use crate::fetch::{Chunk, Fetcher, ReadAhead};

/// Less than the main reader's, since memory is bounded by both together.
const READ_AHEAD: ReadAhead = ReadAhead {
    answers: 2,
    bytes: 1024 * 1024,
};

/// Reads partitions from given offsets on.
pub(crate) struct RangeReader {
    fetcher: Fetcher,
}

impl RangeReader {
    pub(super) fn new(
        settings: &SourceSettings,
        starts: &[(i32, i64)],
    ) -> Result<Self, SourceError> {
        let fetcher = Fetcher::start(settings.fetch_settings(READ_AHEAD))?;
        let starts: Vec<(i32, Option<i64>)> = starts
            .iter()
            .map(|&(partition, offset)| (partition, Some(offset)))
            .collect();
        fetcher.read(&starts);
        Ok(Self { fetcher })
    }

    /// Waits until there is something to take. Dropping the future loses nothing.
    pub(crate) async fn ready(&mut self) {
        self.fetcher.ready().await;
    }

    /// Takes what is there, without waiting.
    pub(crate) fn fill(&mut self, chunk: &mut Chunk) {
        self.fetcher.fill(chunk);
    }
}
