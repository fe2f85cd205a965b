//! Frames on their way to one shard, and which offsets they are.

use std::time::Instant;

use crate::route::Tenure;

/// Offsets of one partition within a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partition: i32,
    pub(crate) tenure: Tenure,
    /// Offset of the first record.
    pub(crate) first: i64,
    /// Offset of the last record.
    pub(crate) last: i64,
}

/// Frames for one shard, published and confirmed together.
#[derive(Debug)]
pub(crate) struct Batch {
    frames: Vec<u8>,
    spans: Vec<Span>,
    messages: u32,
    /// Headers and payload of the largest frame, and of the last, in bytes.
    largest: usize,
    last_size: usize,
    /// Where the last frame begins.
    last_start: usize,
    /// When the first record was taken from Kafka's client.
    began: Instant,
}

impl Batch {
    /// A batch that writes into `frames`, a buffer used before.
    pub(crate) fn new(mut frames: Vec<u8>) -> Self {
        frames.clear();
        Self {
            frames,
            spans: Vec::new(),
            messages: 0,
            largest: 0,
            last_size: 0,
            last_start: 0,
            began: Instant::now(),
        }
    }

    /// Where the next frame is appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.last_start = self.frames.len();
        &mut self.frames
    }

    /// Appends the last frame of another batch, for a record that goes to both.
    pub(crate) fn copy_last(&mut self, other: &Self, partition: i32, tenure: Tenure, offset: i64) {
        self.buffer()
            .extend_from_slice(&other.frames[other.last_start..]);
        self.note(partition, tenure, offset, other.last_size);
    }

    /// Notes a frame just appended: its record, and the bytes of its headers and payload.
    pub(crate) fn note(&mut self, partition: i32, tenure: Tenure, offset: i64, size: usize) {
        if self.messages == 0 {
            self.began = Instant::now();
        }
        self.messages += 1;
        self.largest = self.largest.max(size);
        self.last_size = size;
        // Records come in runs of one partition, so the newest span is nearly always the right one.
        let same = |span: &&mut Span| span.partition == partition && span.tenure == tenure;
        match self.spans.iter_mut().rev().find(same) {
            Some(span) => span.last = offset,
            None => self.spans.push(Span {
                partition,
                tenure,
                first: offset,
                last: offset,
            }),
        }
    }

    pub(crate) fn frames(&self) -> &[u8] {
        &self.frames
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Bytes of headers and payload of the largest frame.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Takes the batch apart: its spans, and the buffer to be used again.
    pub(crate) fn into_parts(self) -> (Vec<Span>, Vec<u8>) {
        (self.spans, self.frames)
    }
}
