//! Clients whose assets have moved here from another group.
//!
//! An asset's events go on in the new group's topic while the last ones of the old group's may not have been delivered yet,
//! or not even been written: who derives the topics may hear of the move later than the router does. So a client goes on in
//! both. What comes of the old topic is read from Kafka and passed on; and before the first event from here, the old
//! topic is read up to the end that it has *then*. All that the asset has there was written before that event, so nothing of the
//! old topic can follow, and it is let go.
//!
//! Where the client begins here is told by the positions in the source that derived records carry ([`join`]): with its
//! first event that is newer than what it has had. So an asset may come back to a group where it has been. An asset's first event in a
//! group names the group before: where the client has not been there, it begins there too ([`catch_up`]). What several topics have
//! is put in the order of the source ([`merge`]).

mod catch_up;
mod ends;
mod had;
mod ids;
mod join;
mod merge;
mod places;
mod search;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use ofa_crds::kafka::KafkaSettings;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::api::{App, Events};
use super::arrivals::Arrivals;
use super::frame;
use super::seen::{Seen, tags};
use super::stream::{PING_INTERVAL, Start};
use super::trail::Trail;
use crate::range::RangeReader;
use crate::selection::Selection;
use catch_up::{Extent, OTHER_GROUPS};
use ends::Ends;
use ids::with_longer_ids;
use merge::Travel;
use places::Places;
use search::Scan;

/// How soon the old topic is looked at again, while something comes from there and while nothing does.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_LATER: Duration = PING_INTERVAL;

/// How long the old topic must have had nothing for a client of several assets, some of which have sent from here, until it
/// is let go: who derives the topics takes in a change of the map within a fraction of that.
const SETTLED: Duration = Duration::from_secs(60);

/// Kafka does not answer, or the client has gone: it is to come back.
#[derive(Debug, Clone, Copy, Error)]
#[error("the client is to come back")]
pub(super) struct Away;

/// What is needed for clients that come from elsewhere.
#[derive(Clone)]
pub(super) struct Moves {
    ends: Ends,
    scans: RangeReader<Scan>,
    travels: RangeReader<Travel>,
}

impl Moves {
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn start(kafka: &KafkaSettings) -> anyhow::Result<Self> {
        Ok(Self {
            ends: Ends::new(kafka)?,
            scans: RangeReader::start(kafka)?,
            travels: RangeReader::start(kafka)?,
        })
    }
}

/// The events of a selection for a client that has been elsewhere.
pub(super) fn events(
    app: App,
    selection: Selection,
    trail: Trail,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let (out, chunks) = mpsc::channel(1);
    tokio::spawn(async move {
        let (gone, stop) = (out.clone(), app.stop.clone());
        let client = Client::new(app, selection, trail, out);
        tokio::select! {
            // Its end is the stream's, and the client comes back.
            _ = client.run() => {}
            () = gone.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    stream::unfold(chunks, |mut chunks| async {
        let bytes = chunks.recv().await?;
        Some((Ok(bytes), chunks))
    })
}

struct Client {
    app: App,
    selection: Arc<Selection>,
    places: Places,
    out: mpsc::Sender<Bytes>,
    /// When the topics elsewhere last had something.
    heard_at: Instant,
}

impl Client {
    fn new(app: App, selection: Selection, trail: Trail, out: mpsc::Sender<Bytes>) -> Self {
        let topic = Arc::clone(&app.topic);
        Self {
            places: Places::new(topic, trail, &tags(&selection)),
            app,
            selection: Arc::new(selection),
            out,
            heard_at: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), Away> {
        self.begin().await?;
        if self.places.has_left() {
            self.tell_gap(OTHER_GROUPS).await?;
        }
        self.catch_up(Extent::WrittenAndHere).await?;
        let Some(here) = self.places.here.take() else {
            let inner = self.open(Start::Unknown).await?;
            return self.pass_on(inner).await;
        };
        let here = join::without_marks(&self.app.moves, here).await?;
        let mut inner = self.open(Start::After(here.clone())).await?;
        self.places.here = Some(here);
        let (mut look, mut wait) = (Instant::now() + LOOK, LOOK);
        loop {
            tokio::select! {
                chunk = inner.next() => {
                    let Ok(chunk) = chunk.ok_or(Away)?;
                    if frame::has_update(&chunk) {
                        self.catch_up(Extent::Written).await?;
                    }
                    self.send_own(&chunk).await?;
                    if frame::has_update(&chunk) && self.is_over() {
                        return self.go_on(inner).await;
                    }
                }
                () = sleep_until(look) => {
                    wait = match self.catch_up(Extent::Visible).await? {
                        true => LOOK,
                        false => (wait * 2).min(LOOK_LATER),
                    };
                    look = Instant::now() + wait;
                }
            }
        }
    }

    /// Finds where the client begins here, if that can be known.
    async fn begin(&mut self) -> Result<(), Away> {
        if self.places.here.is_none() {
            let known: Vec<&Seen> = self.places.all().collect();
            let (moves, topic) = (&self.app.moves, &self.app.topic);
            self.places.here = join::begin(moves, &known, topic, &self.selection).await?;
        }
        Ok(())
    }

    async fn open(&self, start: Start) -> Result<Events, Away> {
        let selection = self.selection.as_ref().clone();
        let arrivals = Arrivals::of(&tags(&self.selection), &self.places.topics());
        let opened = self.app.open(selection, start, arrivals);
        opened.await.map_err(|_| Away)
    }

    /// The stream from here, as it is.
    async fn pass_on(self, mut inner: Events) -> Result<(), Away> {
        while let Some(Ok(chunk)) = inner.next().await {
            self.send(chunk).await?;
        }
        Ok(())
    }

    /// Whether nothing can come any more from where the assets were before; asked when something has come from here.
    fn is_over(&self) -> bool {
        self.is_of_one() || self.heard_at.elapsed() >= SETTLED
    }

    fn is_of_one(&self) -> bool {
        self.selection.assets().count() == 1
    }

    /// Passes on what comes from here alone. The id of several assets keeps how far those have come elsewhere that have sent
    /// nothing here.
    async fn go_on(mut self, mut inner: Events) -> Result<(), Away> {
        if self.is_of_one() {
            return self.pass_on(inner).await;
        }
        while let Some(Ok(chunk)) = inner.next().await {
            self.send_own(&chunk).await?;
        }
        Ok(())
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Away> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.out.send(bytes).await.map_err(|_| Away)
    }

    /// Passes on what comes from here, with ids that tell of the old topics too.
    async fn send_own(&mut self, chunk: &[u8]) -> Result<(), Away> {
        let (bytes, last) = with_longer_ids(chunk, &self.places.behind());
        if let Some(last) = last {
            self.places.here = Seen::parse(&last).ok();
        }
        self.send(bytes).await
    }
}
