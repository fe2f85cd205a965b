//! What ksqlDB answers, as far as it is read.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One entity of an answer to a statement.
#[derive(Debug, Deserialize)]
#[serde(tag = "@type")]
pub(super) enum Entity {
    /// Answer to a statement that changes something.
    #[serde(rename = "currentStatus")]
    CurrentStatus(CurrentStatus),
    /// `LIST STREAMS`.
    #[serde(rename = "streams")]
    Streams {
        /// All streams.
        streams: Vec<Source>,
    },
    /// `LIST TABLES`.
    #[serde(rename = "tables")]
    Tables {
        /// All tables.
        tables: Vec<Source>,
    },
    /// `SHOW QUERIES`.
    #[serde(rename = "queries")]
    Queries {
        /// All queries, persistent or not.
        queries: Vec<Query>,
    },
    /// `DESCRIBE x EXTENDED`.
    #[serde(rename = "sourceDescription")]
    #[serde(rename_all = "camelCase")]
    SourceDescription {
        /// The stream or table.
        source_description: Box<Description>,
    },
    /// Nothing was done, though no error is told.
    #[serde(rename = "warning_entity")]
    Warning {
        /// Why.
        message: String,
    },
    /// What is not read.
    #[serde(other)]
    Other,
}

/// How far a command is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrentStatus {
    pub(super) command_id: String,
    pub(super) command_status: CommandStatus,
}

/// How far a command is.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CommandStatus {
    /// QUEUED, PARSING, EXECUTING, RUNNING, TERMINATED, SUCCESS or ERROR.
    pub(super) status: String,
    #[serde(default)]
    pub(super) message: String,
}

/// A stream or table.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) topic: String,
}

/// A query.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Query {
    pub(super) id: String,
    pub(super) query_string: String,
    #[serde(default)]
    pub(super) sinks: Vec<String>,
    #[serde(default)]
    pub(super) sink_kafka_topics: Vec<String>,
    /// PERSISTENT, PUSH or PULL.
    pub(super) query_type: String,
    /// RUNNING, ERROR, UNRESPONSIVE, PAUSED.
    #[serde(default)]
    pub(super) state: String,
    /// The same for each server; a paused query is told here alone.
    #[serde(default)]
    pub(super) status_count: BTreeMap<String, u32>,
}

/// A stream or table in full.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Description {
    #[serde(default)]
    pub(super) query_offset_summaries: Vec<OffsetSummary>,
}

/// How far a query is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OffsetSummary {
    /// The consumer group.
    #[serde(default)]
    pub(super) group_id: Option<String>,
    #[serde(default)]
    pub(super) topic_summaries: Vec<TopicSummary>,
}

/// How far a query is with one topic.
#[derive(Debug, Deserialize)]
pub(super) struct TopicSummary {
    pub(super) offsets: Vec<PartitionOffsets>,
}

/// How far a query is with one partition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartitionOffsets {
    pub(super) log_end_offset: u64,
    pub(super) consumer_offset: u64,
}

impl Description {
    /// The consumer group by which the stream's query reads; a stream is written by one.
    pub(super) fn consumer_group(&self) -> Option<&str> {
        let mut groups = self.query_offset_summaries.iter();
        groups.find_map(|summary| summary.group_id.as_deref())
    }

    /// Records that the stream's query has not read yet.
    pub(super) fn lag(&self) -> u64 {
        let topics = self.query_offset_summaries.iter();
        let offsets = topics
            .flat_map(|summary| &summary.topic_summaries)
            .flat_map(|topic| &topic.offsets);
        offsets
            .map(|at| at.log_end_offset.saturating_sub(at.consumer_offset))
            .sum()
    }
}

/// An error.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) error_code: u32,
    #[serde(default)]
    pub(super) message: String,
}
