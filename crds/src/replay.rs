//! What clients ask the replay service, and how it answers.
//!
//! `POST /replay` with a [`ReplayRequest`] as JSON. The answer is a sequence of [`ReplayLine`]s: each is JSON and a
//! line feed, and one with an event is followed by the bytes of its payload and another line feed. The first
//! line is [`ReplayLine::Heads`], the last [`ReplayLine::End`]. An answer without it was broken off: what has
//! come holds, and the client asks again for the rest.
//!
//! An event of an answer is what forwarders publish for the record, byte by byte, but for the
//! `asset_forwarder_timestamp`, which is the time of the answer. Events of one partition come in order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most assets of one request: a client with more sends several.
pub const MAX_ASSETS: usize = 10_000;

/// Longest line: a Kafka key or an id, escaped, fits.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// Longest payload: more than brokers take by far.
const MAX_PAYLOAD: usize = 256 * 1024 * 1024;

/// What is to be sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Each part with its own beginning.
    pub asks: Vec<ReplayAsk>,
}

/// Some assets, or all of a shard, from a position on up to now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayAsk {
    /// For each partition the first offset that is asked for. If it is empty, only what [`AssetAsk::from`] names is
    /// asked for; otherwise a partition that is missing is new, and all of it is asked for.
    #[serde(default)]
    pub since: BTreeMap<u32, u64>,
    /// The shard whose assets are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Assets that are meant.
    #[serde(default)]
    pub assets: Vec<AssetAsk>,
}

/// One asset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetAsk {
    /// Its UUID.
    pub asset: String,
    /// Where this asset's events are asked for from elsewhere than [`ReplayAsk::since`], by partition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from: BTreeMap<u32, u64>,
}

impl ReplayRequest {
    /// Assets named, all asks together.
    #[must_use]
    pub fn assets(&self) -> usize {
        self.asks.iter().map(|ask| ask.assets.len()).sum()
    }
}

impl ReplayAsk {
    /// The first offset on a partition that an asset, or the shard, is asked for from; `None` for nothing.
    #[must_use]
    pub fn from(&self, partition: u32, asset: Option<&AssetAsk>) -> Option<u64> {
        let own = asset.and_then(|asset| asset.from.get(&partition));
        let common = || (!self.since.is_empty()).then(|| self.since.get(&partition).copied());
        own.copied()
            .or_else(|| common().map(Option::unwrap_or_default))
    }
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayLine {
    /// Everything below these offsets is in the answer.
    Heads {
        /// The Kafka topic.
        topic: String,
        /// For each partition the offset after its last record.
        next: BTreeMap<u32, u64>,
    },
    /// Kafka no longer has these offsets. Lines [`ReplayLine::State`] of the same asset follow.
    Gap {
        /// The asset; `None` for any of the shard asked for.
        asset: Option<String>,
        /// Partition.
        partition: u32,
        /// First offset that was asked for.
        first: u64,
        /// Last offset that is no longer there.
        last: u64,
    },
    /// The newest event of one attribute of the asset for which a gap was told, on its partition.
    State(ReplayEvent),
    /// An event that was asked for.
    Event(ReplayEvent),
    /// All that was asked for of a partition below this offset has been sent: if the answer breaks off, what follows is asked for
    /// from here.
    Reached {
        /// Partition.
        partition: u32,
        /// Offset.
        next: u64,
    },
    /// Nothing is missing.
    End,
}

/// The line of an event; its payload follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayEvent {
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: u64,
    /// The asset's UUID.
    pub asset: String,
    /// The attribute's id.
    pub id: String,
    /// The topic of the group that the asset was in before, with its first event since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// Bytes of the payload.
    pub bytes: usize,
}

/// Bytes that are no answer of a replay service.
#[derive(Debug, Error)]
pub enum ReplayDecodeError {
    /// A line is none of ours.
    #[error(
        "the replay service's answer cannot be read: {0}; are client and service of one version?"
    )]
    Line(#[from] serde_json::Error),
    /// Longer than anything that is sent.
    #[error("the replay service's answer has a line or payload beyond all bounds")]
    TooLong,
    /// No line feed where one belongs.
    #[error("the replay service's answer has a payload of another length than announced")]
    Length,
}

impl ReplayLine {
    /// Appends the line; the payload is empty for lines without.
    pub fn write(&self, payload: &[u8], out: &mut Vec<u8>) {
        // Texts and numbers only: this cannot fail.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
        if self.bytes().is_some() {
            out.extend_from_slice(payload);
            out.push(b'\n');
        }
    }

    fn bytes(&self) -> Option<usize> {
        match self {
            Self::State(event) | Self::Event(event) => Some(event.bytes),
            Self::Heads { .. } | Self::Gap { .. } | Self::Reached { .. } | Self::End => None,
        }
    }
}

/// Reads an answer as it comes, in pieces of any size.
#[derive(Debug, Default)]
pub struct ReplayDecoder {
    buffer: Vec<u8>,
    /// Bytes of the buffer that are read.
    at: usize,
    /// Bytes behind `at` that hold no line feed.
    searched: usize,
    /// A line that waits for its payload.
    event: Option<ReplayLine>,
}

impl ReplayDecoder {
    /// Takes the next piece in.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next line that is complete, with its payload.
    ///
    /// # Errors
    /// When the bytes are no answer; what follows cannot be read either.
    pub fn next_line(&mut self) -> Result<Option<(ReplayLine, Vec<u8>)>, ReplayDecodeError> {
        if self.event.is_none() {
            let Some(line) = self.take_line()? else {
                return Ok(None);
            };
            match line.bytes() {
                None => return Ok(Some((line, Vec::new()))),
                Some(bytes) if bytes > MAX_PAYLOAD => return Err(ReplayDecodeError::TooLong),
                Some(_) => self.event = Some(line),
            }
        }
        let bytes = self.event.as_ref().and_then(ReplayLine::bytes).unwrap_or(0);
        let Some(payload) = self.buffer.get(self.at..=self.at + bytes) else {
            return Ok(None);
        };
        let Some((b'\n', payload)) = payload.split_last() else {
            return Err(ReplayDecodeError::Length);
        };
        let payload = payload.to_vec();
        self.at += bytes + 1;
        Ok(self.event.take().map(|line| (line, payload)))
    }

    fn take_line(&mut self) -> Result<Option<ReplayLine>, ReplayDecodeError> {
        let rest = &self.buffer[self.at..];
        let found = rest[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(length) = found.map(|found| self.searched + found) else {
            self.searched = rest.len();
            return if rest.len() > MAX_LINE {
                Err(ReplayDecodeError::TooLong)
            } else {
                Ok(None)
            };
        };
        let line = serde_json::from_slice(&rest[..length])?;
        self.searched = 0;
        self.at += length + 1;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = (ReplayEvent, Vec<u8>)> {
        let parts = (
            any::<u32>(),
            any::<u64>(),
            ".{1,9}",
            ".{1,9}",
            proptest::option::of(".{1,9}"),
            any::<Vec<u8>>(),
        );
        parts.prop_map(|(partition, offset, asset, id, moved_from, payload)| {
            let bytes = payload.len();
            let event = ReplayEvent {
                partition,
                offset,
                asset,
                id,
                moved_from,
                bytes,
            };
            (event, payload)
        })
    }

    fn line() -> impl Strategy<Value = (ReplayLine, Vec<u8>)> {
        let heads = (
            ".{0,9}",
            proptest::collection::btree_map(any::<u32>(), any::<u64>(), 0..4),
        );
        let gap = (
            proptest::option::of(".{1,9}"),
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
        );
        prop_oneof![
            heads.prop_map(|(topic, next)| (ReplayLine::Heads { topic, next }, vec![])),
            gap.prop_map(|(asset, partition, first, last)| {
                (
                    ReplayLine::Gap {
                        asset,
                        partition,
                        first,
                        last,
                    },
                    vec![],
                )
            }),
            event().prop_map(|(event, payload)| (ReplayLine::State(event), payload)),
            event().prop_map(|(event, payload)| (ReplayLine::Event(event), payload)),
            (any::<u32>(), any::<u64>())
                .prop_map(|(partition, next)| (ReplayLine::Reached { partition, next }, vec![])),
            Just((ReplayLine::End, vec![])),
        ]
    }

    fn read(decoder: &mut ReplayDecoder) -> Vec<(ReplayLine, Vec<u8>)> {
        std::iter::from_fn(|| decoder.next_line().unwrap()).collect()
    }

    proptest! {
        /// However the bytes are cut on the way.
        #[test]
        fn an_answer_reads_back_as_written(lines in proptest::collection::vec(line(), 0..8), cut in 1usize..40) {
            let mut bytes = Vec::new();
            for (line, payload) in &lines {
                line.write(payload, &mut bytes);
            }
            let (mut decoder, mut found) = (ReplayDecoder::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                found.extend(read(&mut decoder));
            }
            prop_assert_eq!(found, lines);
        }

        /// Whatever comes: an error at the latest, and never a panic.
        #[test]
        fn nothing_makes_the_decoder_panic(
            lines in proptest::collection::vec(line(), 0..4),
            noise in any::<Vec<u8>>(),
            at: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            for (line, payload) in &lines {
                line.write(payload, &mut bytes);
            }
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, noise);
            let mut decoder = ReplayDecoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_line() {}
        }

        #[test]
        fn a_request_reads_back_as_written(since: BTreeMap<u32, u64>, shard: Option<String>, asset: String, from: BTreeMap<u32, u64>) {
            let request = ReplayRequest { asks: vec![ReplayAsk { since, shard, assets: vec![AssetAsk { asset, from }] }] };
            let text = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(serde_json::from_str::<ReplayRequest>(&text).unwrap(), request);
        }
    }

    #[test]
    fn a_partition_that_is_not_named_is_new_unless_none_is() {
        let asset = AssetAsk {
            asset: "A".to_owned(),
            from: [(1, 7)].into(),
        };
        let mut ask = ReplayAsk {
            since: [(0, 5)].into(),
            ..ReplayAsk::default()
        };
        let from = |ask: &ReplayAsk| [0, 1, 2].map(|partition| ask.from(partition, Some(&asset)));
        assert_eq!(from(&ask), [Some(5), Some(7), Some(0)]);
        ask.since.clear();
        assert_eq!(from(&ask), [None, Some(7), None]);
    }
}
