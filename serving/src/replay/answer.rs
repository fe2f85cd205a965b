//! One request's answer: from memory where that reaches, from Kafka where it does not, up to the topic's end at the
//! moment of the question.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ofa_crds::kafka::now_ms;
use ofa_crds::payload::PayloadFormat;
use ofa_crds::replay::{ReplayLine, ReplayRequest};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::encode::{Encoder, Newest};
use super::heads::Heads;
use super::lanes::{Lanes, Slice};
use super::record::Record;
use super::tail::Tail;
use crate::metrics::{Metrics, ReplaySource};
use crate::range::{Range, RangeReader, Unanswered};

/// Bytes of events that are taken from memory at a time, and wait for a client at most.
const PAGE_BYTES: usize = 256 * 1024;

/// How long memory may be behind the topic's end before the rest is read from Kafka: some fetches.
const REACH_PATIENCE: Duration = Duration::from_millis(500);

/// How long a client hears nothing while Kafka is read for it: it takes a service that is silent for 15 s for one that is gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);

/// Most attributes whose newest event is told after a gap, all assets of a request together: bounds memory.
const MAX_STATE: usize = 100_000;

/// Why an answer ends early; the client asks again.
#[derive(Debug, Error)]
pub(super) enum Interrupted {
    /// Kafka is silent.
    #[error(transparent)]
    Kafka(#[from] Unanswered),
    /// The client has gone.
    #[error("the client has gone")]
    Gone,
}

/// What answers are made of.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) topic: Arc<str>,
    pub(super) format: PayloadFormat,
    pub(super) heads: Heads,
    pub(super) ranges: RangeReader<Lanes>,
    pub(super) metrics: Arc<Metrics>,
}

/// An answer on its way.
pub(super) struct Answer {
    sources: Sources,
    tail: Arc<Tail>,
    encoder: Encoder,
    out: mpsc::Sender<Bytes>,
    /// A partition, and the offset below which all of it has been sent.
    reached: (u32, u64),
    /// When the client was last told anything.
    told: Instant,
}

/// A page from either source.
struct Part {
    records: Vec<Record>,
    next: u64,
    lost: Option<u64>,
    source: ReplaySource,
}

impl Answer {
    pub(super) fn new(sources: Sources, tail: Arc<Tail>, out: mpsc::Sender<Bytes>) -> Self {
        Self {
            encoder: Encoder::new(sources.format),
            sources,
            tail,
            out,
            reached: (0, 0),
            told: Instant::now(),
        }
    }

    /// Writes the whole answer.
    ///
    /// # Errors
    /// When Kafka is silent or the client has gone.
    pub(super) async fn write(
        mut self,
        request: &ReplayRequest,
        slices: &[Option<Slice>],
    ) -> Result<(), Interrupted> {
        let heads = self.sources.heads.now().await?;
        self.encoder.line(&ReplayLine::Heads {
            topic: self.sources.topic.as_ref().to_owned(),
            next: (0..).zip(heads.iter().copied()).collect(),
        });
        self.send().await?;
        for (partition, head) in (0..).zip(heads.iter().copied()) {
            let lanes = Lanes::of(request, slices, partition);
            if let Some(lowest) = lanes.lowest().filter(|lowest| *lowest < head) {
                let lanes = Arc::new(lanes);
                self.partition(partition, &lanes, (lowest, head)).await?;
            }
        }
        self.encoder.line(&ReplayLine::End);
        self.send().await
    }

    async fn partition(
        &mut self,
        partition: u32,
        lanes: &Arc<Lanes>,
        (from, head): (u64, u64),
    ) -> Result<(), Interrupted> {
        self.tail.reach(partition, head, REACH_PATIENCE).await;
        let mut next = from;
        self.reached = (partition, from);
        while next < head {
            let part = self.part(partition, lanes, (next, head)).await?;
            if let Some(first) = part.lost {
                self.gap(partition, lanes, (first, head)).await?;
            }
            self.encoder.set_now(now_ms());
            let written = part.records.iter();
            let written =
                written.filter(|record| self.encoder.event(partition, record, ReplayLine::Event));
            let events = written.count();
            self.sources.metrics.replayed(part.source, events);
            next = part.next;
            self.reached = (partition, next);
            if part.source == ReplaySource::Kafka {
                // It took a while, and may have found nothing: a client whose answer breaks off needs not have it read again.
                self.tell_reached();
            }
            self.send().await?;
        }
        Ok(())
    }

    fn tell_reached(&mut self) {
        let (partition, next) = self.reached;
        self.encoder.line(&ReplayLine::Reached { partition, next });
    }

    /// The next page, from memory if that covers it.
    async fn part(
        &mut self,
        partition: u32,
        lanes: &Arc<Lanes>,
        (from, head): (u64, u64),
    ) -> Result<Part, Interrupted> {
        if let Some(found) = self.tail.page(partition, lanes, (from, head), PAGE_BYTES) {
            return Ok(Part {
                records: found.records,
                next: found.next,
                lost: None,
                source: ReplaySource::Memory,
            });
        }
        let covered = self.tail.covered(partition);
        let range = Range {
            topic: Arc::clone(&self.sources.topic),
            partition,
            from,
            // Up to where memory begins; it may begin later by then.
            to: covered.map_or(
                head,
                |(start, _)| if start > from { start.min(head) } else { head },
            ),
            wanted: Arc::clone(lanes),
        };
        let ranges = self.sources.ranges.clone();
        let mut reading = pin!(ranges.read(range));
        let page = loop {
            tokio::select! {
                // Also after many pages that were read at once and of which there was nothing to tell.
                biased;
                () = sleep_until(self.told + SIGN_OF_LIFE) => {
                    self.tell_reached();
                    self.send().await?;
                }
                page = &mut reading => break page?,
            }
        };
        Ok(Part {
            records: page.items.iter().map(|it| it.as_ref().clone()).collect(),
            next: page.next,
            lost: page.lost,
            source: ReplaySource::Kafka,
        })
    }

    /// Tells what Kafka no longer has, and the assets' state instead.
    async fn gap(
        &mut self,
        partition: u32,
        lanes: &Arc<Lanes>,
        (first, head): (u64, u64),
    ) -> Result<(), Interrupted> {
        let hit: Vec<_> = lanes.before(first).collect();
        let newest = self.newest(partition, lanes, &hit, (first, head)).await?;
        self.encoder.set_now(now_ms());
        for (asset, from) in hit {
            self.sources.metrics.replay_gap();
            self.encoder.line(&ReplayLine::Gap {
                asset: asset.as_deref().map(str::to_owned),
                partition,
                first: from,
                last: first - 1,
            });
            for record in asset.iter().flat_map(|asset| newest.of(asset)) {
                self.encoder.event(partition, record, ReplayLine::State);
            }
            self.send().await?;
        }
        Ok(())
    }

    /// The newest event of each attribute of the assets that were hit.
    async fn newest(
        &mut self,
        partition: u32,
        lanes: &Arc<Lanes>,
        hit: &[(Option<Arc<str>>, u64)],
        (first, head): (u64, u64),
    ) -> Result<Newest, Interrupted> {
        let assets: BTreeSet<&str> = hit
            .iter()
            .filter_map(|(asset, _)| asset.as_deref())
            .collect();
        let (mut newest, mut next) = (Newest::default(), first);
        while next < head && !assets.is_empty() && newest.len() < MAX_STATE {
            let part = self.part(partition, lanes, (next, head)).await?;
            next = part.next;
            for record in part.records {
                if assets.contains(&*record.asset) {
                    newest.take(record, self.sources.format);
                }
            }
        }
        Ok(newest)
    }

    /// Waits until the client has room.
    async fn send(&mut self) -> Result<(), Interrupted> {
        let bytes = self.encoder.take();
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = self.out.send(bytes).await;
        // Afterwards: a client that takes its time is told of no signs of life on top.
        self.told = Instant::now();
        sent.map_err(|_| Interrupted::Gone)
    }
}
