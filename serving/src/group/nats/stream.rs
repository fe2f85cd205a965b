//! The body of one client's answer: hello, what it has missed, then live until one side ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::super::arrivals::Arrivals;
use super::super::frame;
use super::super::seen::Seen;
use super::super::stream::{MADE_ANEW, PING_INTERVAL, unknown};
use super::inbox::{Inbox, Next};
use super::lane::{LaneState, Watcher};
use super::lanes::{LaneUse, Lanes};
use super::progress::{Lack, Progress, Step};
use crate::range::{Range, RangeReader};
use crate::selection::Selection;

/// How long a client waits for its subscriptions. One that takes longer comes back: pings begin when they stand.
const OPEN_PATIENCE: Duration = Duration::from_secs(15);

/// What a stream needs.
pub(in crate::group) struct Sources {
    /// Where events come from.
    pub(in crate::group) lanes: Arc<Lanes>,
    /// Where older ones come from.
    pub(in crate::group) ranges: RangeReader<Selection>,
    /// Ends all streams, so that clients come back at another instance or at the next process.
    pub(in crate::group) stop: CancellationToken,
}

/// Where a client begins, and what it is told first.
pub(in crate::group) struct Begun {
    seen: Seen,
    first: Bytes,
}

impl Begun {
    pub(super) fn now(seen: Seen, is_unknown: bool) -> Self {
        let first = if is_unknown {
            unknown(&seen)
        } else {
            frame::hello(&seen)
        };
        Self { seen, first }
    }

    pub(super) fn after(seen: Seen) -> Self {
        Self::now(seen, false)
    }

    pub(super) fn anew(seen: Seen) -> Self {
        let gap = frame::gap(MADE_ANEW, &seen);
        let first = Bytes::from([frame::hello(&seen), gap].concat());
        Self { seen, first }
    }
}

/// The events of a selection, as server-sent events.
pub(in crate::group) fn events(
    sources: Sources,
    selection: Selection,
    begun: Begun,
    arrivals: Arrivals,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let client = Client::new(
        sources,
        Progress::new(selection, begun.seen, arrivals),
        begun.first,
    );
    stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok(bytes), client))
    })
}

struct Client {
    sources: Sources,
    progress: Progress,
    lanes: Vec<LaneUse>,
    phase: Phase,
    ping_at: Instant,
}

enum Phase {
    /// To be said first.
    Begin(Bytes),
    Open,
    CatchUp,
    Live(Arc<Watcher>),
}

/// What a client that gets events as they come is to do next.
enum Live {
    Write(Bytes),
    /// Catch up: it took nothing for a while, and was left out.
    Behind,
    /// Come back: it has fallen behind by too much, or has to for other reasons.
    Ended,
}

impl Client {
    fn new(sources: Sources, progress: Progress, first: Bytes) -> Self {
        let share = |asset| sources.lanes.share(asset, progress.seen());
        Self {
            lanes: progress.selection.assets().map(share).collect(),
            sources,
            progress,
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
        while !self.progress.is_over() {
            match &self.phase {
                Phase::Begin(first) => {
                    let first = first.clone();
                    self.phase = Phase::Open;
                    return Some(first);
                }
                Phase::Open => {
                    self.opened().await?;
                    self.phase = Phase::CatchUp;
                }
                Phase::CatchUp => {
                    let caught_up = self.catch_up().await?;
                    if !caught_up.is_empty() {
                        return Some(caught_up);
                    }
                }
                Phase::Live(watcher) => {
                    let watcher = Arc::clone(watcher);
                    match self.live(&watcher.inbox).await {
                        Live::Write(bytes) => return Some(bytes),
                        Live::Behind => {
                            self.detach();
                            self.phase = Phase::CatchUp;
                        }
                        Live::Ended => return None,
                    }
                }
            }
        }
        None
    }

    /// Waits until all subscriptions stand; `None` ends the stream.
    async fn opened(&self) -> Option<()> {
        let all = async {
            for lane in &self.lanes {
                let mut state = lane.lane().state();
                let state = state.wait_for(|state| *state != LaneState::Waits);
                if *state.await.ok()? == LaneState::Ended {
                    return None;
                }
            }
            Some(())
        };
        tokio::time::timeout(OPEN_PATIENCE, all).await.ok()?
    }

    /// The next part of what was missed; empty when there is nothing to write. `None` ends the stream: the client comes back
    /// with the last id it has.
    async fn catch_up(&mut self) -> Option<Bytes> {
        let lanes = self.lanes.iter().map(LaneUse::lane);
        let room = self.sources.lanes.queue_bytes();
        match self.progress.join(lanes, room) {
            Step::Read(lack) => self.read(lack).await,
            Step::Write(bytes) => Some(bytes),
            Step::Live(watcher) => {
                self.phase = Phase::Live(watcher);
                Some(Bytes::new())
            }
            Step::Again => {
                // A subscription that has ended ends the stream.
                self.opened().await?;
                Some(Bytes::new())
            }
        }
    }

    async fn read(&mut self, lack: Lack) -> Option<Bytes> {
        let range = Range {
            topic: Arc::clone(self.progress.seen().base().topic()),
            partition: lack.partition,
            from: lack.from,
            to: lack.to,
            wanted: Arc::clone(&self.progress.selection),
        };
        match self.sources.ranges.read(range).await {
            Ok(page) => Some(self.progress.read(&lack, &page)),
            Err(error) => {
                debug!(%error, "a client that catches up is sent away");
                None
            }
        }
    }

    /// What waits, with the id after each event; a ping when all is quiet.
    async fn live(&mut self, inbox: &Inbox) -> Live {
        loop {
            let bytes = match inbox.take() {
                Next::Take(items) => self.progress.take(&items),
                Next::Behind => return Live::Behind,
                Next::Close => return Live::Ended,
                Next::Nothing => {
                    let changed = tokio::time::timeout_at(self.ping_at, inbox.changed());
                    match changed.await {
                        Ok(()) => continue,
                        Err(_) => frame::ping(self.progress.seen()),
                    }
                }
            };
            if !bytes.is_empty() {
                self.ping_at = Instant::now() + PING_INTERVAL;
                return Live::Write(bytes);
            }
        }
    }

    fn detach(&self) {
        if let Phase::Live(watcher) = &self.phase {
            for lane in &self.lanes {
                lane.lane().detach(watcher);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.detach();
    }
}
