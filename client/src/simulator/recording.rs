//! A recording of a real machine: JSON lines of `t_ms`, `key` and `value`, in time order, gzip or plain.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// Stands where the timestamp goes while an event is cut in two; no recorded text holds control characters.
const MARK: &str = "\u{1}timestamp\u{1}";

/// Why a recording cannot be replayed.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("the recording {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is none of a recording.
    #[error(
        "line {line} of the recording {path} cannot be used: {reason}; a line reads {{\"t_ms\":0,\"key\":\"...\",\"value\":{{...}}}}"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing in it.
    #[error("the recording {0} holds no events")]
    Empty(PathBuf),
}

/// The events of one machine.
#[derive(Debug)]
pub struct Recording {
    key: String,
    events: Vec<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    t_ms: u64,
    /// The JSON before and after the timestamp.
    head: String,
    tail: String,
}

#[derive(Deserialize)]
struct Line {
    t_ms: u64,
    key: String,
    value: Map<String, Value>,
}

impl Recording {
    /// Reads a file, `.gz` or plain.
    ///
    /// # Errors
    /// When it cannot be read, holds a line that is no event, or nothing at all.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let read_error = |source| RecordingError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read_error)?;
        let reader: Box<dyn Read> = if path.extension().is_some_and(|it| it == "gz") {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut lines = Vec::new();
        for (index, line) in BufReader::new(reader).lines().enumerate() {
            let line: Line = serde_json::from_str(&line.map_err(read_error)?).map_err(|error| {
                RecordingError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                    reason: error.to_string(),
                }
            })?;
            lines.push(line);
        }
        Self::from_lines(lines).ok_or_else(|| RecordingError::Empty(path.to_owned()))
    }

    /// All events become one machine's, named as most of them are.
    fn from_lines(lines: Vec<Line>) -> Option<Self> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for line in &lines {
            *counts.entry(&line.key).or_default() += 1;
        }
        let key = counts
            .into_iter()
            .max_by_key(|&(_, count)| count)?
            .0
            .to_owned();
        let mut events: Vec<Recorded> = lines.into_iter().map(Recorded::from).collect();
        events.sort_by_key(|event| event.t_ms);
        Some(Self { key, events })
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Never: an empty file is no recording.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// UUID of the copy `index`.
    #[must_use]
    pub fn uuid(&self, index: usize) -> String {
        format!("{}-{index:04}", self.key)
    }

    /// Events a second, as recorded.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate, far below 2^52 events or ms"
    )]
    pub fn rate(&self) -> f64 {
        self.len() as f64 * 1000.0 / self.length_ms().max(1) as f64
    }

    /// The first event after `share` (0 to 1) of the recording's time, and the milliseconds until it.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a point in a recording, far below 2^52 ms"
    )]
    pub fn event_after(&self, share: f64) -> (usize, u64) {
        let first = self.events.first().map_or(0, |event| event.t_ms);
        let t_ms = first + (self.length_ms() as f64 * share) as u64;
        let index = self.events.partition_point(|event| event.t_ms < t_ms);
        self.events
            .get(index)
            .map_or((0, 0), |event| (index, event.t_ms - t_ms))
    }

    /// Milliseconds from the event `index` to the next one; the first follows the last after a mean pause.
    #[must_use]
    pub fn pause_ms(&self, index: usize) -> u64 {
        match self.events.get(index + 1) {
            Some(next) => next.t_ms - self.events[index].t_ms,
            None => self.length_ms() / self.len() as u64,
        }
    }

    /// Writes the event `index` with another timestamp.
    pub fn write(&self, index: usize, timestamp: &str, out: &mut Vec<u8>) {
        let event = &self.events[index];
        out.clear();
        out.extend_from_slice(event.head.as_bytes());
        out.extend_from_slice(timestamp.as_bytes());
        out.extend_from_slice(event.tail.as_bytes());
    }

    fn length_ms(&self) -> u64 {
        let first = self.events.first().map_or(0, |event| event.t_ms);
        self.events.last().map_or(0, |event| event.t_ms) - first
    }
}

impl From<Line> for Recorded {
    fn from(line: Line) -> Self {
        let Line {
            t_ms, mut value, ..
        } = line;
        let attributes = value
            .entry("attributes")
            .or_insert_with(|| Value::Object(Map::new()));
        if !attributes.is_object() {
            *attributes = Value::Object(Map::new());
        }
        if let Value::Object(attributes) = attributes {
            attributes.insert("timestamp".to_owned(), Value::from(MARK));
        }
        let json = Value::Object(value).to_string();
        let mark = Value::from(MARK).to_string();
        let mark = mark.trim_matches('"');
        let (head, tail) = json.split_once(mark).unwrap_or((&json, ""));
        Self {
            t_ms,
            head: head.to_owned(),
            tail: tail.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recording() -> Recording {
        let line = |t_ms, key: &str, value: Value| Line {
            t_ms,
            key: key.to_owned(),
            value: value.as_object().unwrap().clone(),
        };
        let lines = vec![
            line(
                0,
                "OKUMA.1",
                json!({"ID": "a", "VALUE": "", "attributes": {"timestamp": "old", "x": 1}}),
            ),
            line(400, "OKUMA.1", json!({"ID": "b", "VALUE": 2})),
            line(1000, "Mazak", json!({"ID": "c", "VALUE": "timestamp"})),
        ];
        Recording::from_lines(lines).unwrap()
    }

    #[test]
    fn only_the_timestamp_is_changed() {
        let mut out = Vec::new();
        recording().write(0, "2026", &mut out);
        let expected = json!({"ID": "a", "VALUE": "", "attributes": {"timestamp": "2026", "x": 1}});
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
        recording().write(2, "2026", &mut out);
        let expected =
            json!({"ID": "c", "VALUE": "timestamp", "attributes": {"timestamp": "2026"}});
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }

    #[test]
    fn pauses_are_kept_and_the_end_leads_to_the_beginning() {
        let recording = recording();
        let pauses: Vec<u64> = (0..3).map(|index| recording.pause_ms(index)).collect();
        assert_eq!(pauses, [400, 600, 333]);
        assert_eq!(recording.event_after(0.1), (1, 300));
        assert_eq!(recording.event_after(0.999), (2, 1));
        assert_eq!(recording.uuid(7), "OKUMA.1-0007");
        assert!((recording.rate() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_bad_line_is_named() {
        let file = std::env::temp_dir().join(format!("ofa-recording-{}.jsonl", std::process::id()));
        std::fs::write(
            &file,
            "{\"t_ms\":0,\"key\":\"a\",\"value\":{}}\n{\"t_ms\":1}\n",
        )
        .unwrap();
        let error = Recording::open(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.starts_with("line 2 of"), "{error}");
    }
}
