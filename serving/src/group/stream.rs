//! The body of one client's answer: hello, what it has missed, then live until one side ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::arrivals::Arrivals;
use super::frame::{self, Frame};
use super::hub::{Hub, Join, Subscription};
use super::position::Position;
use super::queue::Next;
use super::seen::{AssetTag, Seen, tags};
use crate::range::{Range, RangeReader};
use crate::selection::Selection;

/// Upstream's interval: proxies close connections that are silent for longer.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a client may be ahead of this service: another replica reads the same topic some milliseconds
/// faster, but one that is ahead for longer has the id of a topic that is no more.
pub(super) const AHEAD_PATIENCE: Duration = Duration::from_secs(5);
pub(super) const AHEAD_POLL: Duration = Duration::from_millis(50);

/// Why events between an id and what follows can no longer be had.
pub(super) const MADE_ANEW: &str = "the stream has been made anew";
pub(super) const TOO_OLD: &str = "the stream no longer keeps events that old";

/// Where a client begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// With what comes next.
    Now,
    /// After the event with this id.
    After(Seen),
    /// With what comes next, though the client had an id that means nothing here.
    Unknown,
}

/// What a stream needs.
#[derive(Clone)]
pub(super) struct Sources {
    /// Where events come from.
    pub(super) hub: Arc<Hub>,
    /// Where older ones come from.
    pub(super) ranges: RangeReader<Selection>,
    /// Ends all streams, so that clients come back at another replica or at the next process.
    pub(super) stop: CancellationToken,
}

/// The events of a selection, as server-sent events.
pub(super) fn events(
    sources: Sources,
    selection: Selection,
    start: Start,
    arrivals: Arrivals,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let client = Client::new(sources, selection, start, arrivals);
    stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok(bytes), client))
    })
}

struct Client {
    sources: Sources,
    selection: Arc<Selection>,
    /// What has been seen; not kept while the stream is live, when events carry it themselves.
    seen: Seen,
    arrivals: Arrivals,
    phase: Phase,
    ping_at: Instant,
}

enum Phase {
    /// To be said first.
    Begin(Bytes),
    CatchUp,
    Live(Subscription),
    /// The client is to come back.
    Ended,
}

impl Client {
    fn new(sources: Sources, selection: Selection, start: Start, arrivals: Arrivals) -> Self {
        let now = || sources.hub.position().into();
        let (seen, first) = match start {
            Start::After(mut seen) => {
                seen.keep(&tags(&selection));
                let hello = frame::hello(&seen);
                (seen, hello)
            }
            Start::Now => {
                let seen = now();
                let hello = frame::hello(&seen);
                (seen, hello)
            }
            Start::Unknown => {
                let seen = now();
                let first = unknown(&seen);
                (seen, first)
            }
        };
        Self {
            sources,
            selection: Arc::new(selection),
            seen,
            arrivals,
            phase: Phase::Begin(first),
            ping_at: Instant::now() + PING_INTERVAL,
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        let stop = self.sources.stop.clone();
        // Not `run_until_cancelled`: it has room for the future twice, for each idle client.
        tokio::select! {
            () = stop.cancelled() => None,
            bytes = self.step() => bytes,
        }
    }

    async fn step(&mut self) -> Option<Bytes> {
        loop {
            match &self.phase {
                Phase::Begin(first) => {
                    let first = first.clone();
                    self.phase = Phase::CatchUp;
                    return Some(first);
                }
                Phase::CatchUp => {
                    let caught_up = self.catch_up().await?;
                    if !caught_up.is_empty() {
                        return Some(caught_up);
                    }
                }
                Phase::Live(subscription) => match live(subscription, &mut self.ping_at).await {
                    Live::Write(bytes) => return Some(bytes),
                    Live::Behind(position) => {
                        self.seen = position.into();
                        self.phase = Phase::CatchUp;
                    }
                    Live::Ended => return None,
                },
                Phase::Ended => return None,
            }
        }
    }

    /// The next part of what was missed; empty when there is nothing more and the stream is live. `None` ends
    /// the stream: the client comes back with the last id it has.
    async fn catch_up(&mut self) -> Option<Bytes> {
        let begun = Instant::now();
        loop {
            match self.join() {
                Join::Live(missing, subscription) => {
                    self.phase = Phase::Live(subscription);
                    return Some(self.encode(&missing));
                }
                Join::More(missing) => return Some(self.encode(&missing)),
                Join::Read {
                    partition,
                    from,
                    to,
                } => {
                    let read = self.read(partition, from, to).await?;
                    if !read.is_empty() {
                        return Some(read);
                    }
                }
                Join::Ahead if begun.elapsed() < AHEAD_PATIENCE => {
                    tokio::time::sleep(AHEAD_POLL).await;
                }
                Join::Ahead => {
                    self.seen = self.sources.hub.position().into();
                    return Some(frame::gap(MADE_ANEW, &self.seen));
                }
            }
        }
    }

    fn join(&self) -> Join {
        let hub = &self.sources.hub;
        hub.join(&self.selection, &self.seen, &self.arrivals)
    }

    async fn read(&mut self, partition: u32, from: u64, to: u64) -> Option<Bytes> {
        let range = Range {
            topic: Arc::clone(self.seen.base().topic()),
            partition,
            from,
            to,
            wanted: Arc::clone(&self.selection),
        };
        let page = match self.sources.ranges.read(range).await {
            Ok(page) => page,
            Err(error) => {
                debug!(%error, "a client that catches up is sent away");
                return None;
            }
        };
        let mut out = Vec::new();
        if let Some(first) = page.lost {
            self.seen.raise_all(partition, first);
            out.extend_from_slice(&frame::gap(TOO_OLD, &self.seen));
        }
        out.extend_from_slice(&self.encode(&page.items));
        self.seen.raise_all(partition, page.next);
        Some(out.into())
    }

    /// Up to the first event that the client may not be given yet.
    fn encode(&mut self, frames: &[Arc<Frame>]) -> Bytes {
        let mut out = Vec::with_capacity(frames.iter().map(|frame| frame.size()).sum());
        for frame in frames {
            let asset = || AssetTag::of(&frame.asset);
            let (partition, offset) = (frame.partition, frame.offset);
            // What it has had already is no arrival.
            if offset >= self.seen.next(asset(), partition) && !frame.follows(&self.arrivals) {
                out.extend_from_slice(&frame.elsewhere(&self.seen));
                self.phase = Phase::Ended;
                break;
            }
            if self.seen.take_in_order(asset, partition, offset) && frame.is_of(&self.selection) {
                frame.write_at(&self.seen, &mut out);
            }
        }
        out.into()
    }
}

/// The first words to a client whose id means nothing here.
pub(super) fn unknown(seen: &Seen) -> Bytes {
    let gap = frame::gap("the id is not one of this stream", seen);
    Bytes::from([frame::hello(seen), gap].concat())
}

/// What a client that gets events as they come is to do next.
enum Live {
    Write(Bytes),
    /// Catch up from here: it took nothing for a while, and was left out.
    Behind(Position),
    /// Come back: it has fallen behind by too much, or has to for other reasons.
    Ended,
}

async fn live(subscription: &Subscription, ping_at: &mut Instant) -> Live {
    loop {
        match subscription.queue().take() {
            Next::Write(bytes) => {
                *ping_at = Instant::now() + PING_INTERVAL;
                return Live::Write(bytes);
            }
            Next::Behind(position) => return Live::Behind(position),
            Next::Close => return Live::Ended,
            Next::Nothing => {}
        }
        let changed = subscription.queue().changed();
        if tokio::time::timeout_at(*ping_at, changed).await.is_err()
            && let Some(position) = subscription.quiet_position()
        {
            *ping_at = Instant::now() + PING_INTERVAL;
            return Live::Write(frame::ping(&position));
        }
    }
}
