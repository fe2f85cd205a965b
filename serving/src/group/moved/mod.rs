//! Clients whose assets have moved here from another group.
//!
//! An asset's events go on in the new group's topic while the last ones of the old group's may not have been delivered yet,
//! or not even been written: who derives the topics may hear of the move later than the router does. So a client goes on in
//! both. What comes of the old topic is read from Kafka and passed on; and before the first event from here, the old
//! topic is read up to the end that it has *then*. All that the asset has there was written before that event, so nothing of the
//! old topic can follow, and it is let go.
//!
//! Where the client begins here is told by the positions in the source that derived records carry ([`join`]): with its
//! first event that is newer than what it has had. So an asset may come back to a group where it has been.

mod earlier;
mod ends;
mod join;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use ofa_crds::kafka::KafkaSettings;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::api::App;
use super::frame;
use super::seen::{Seen, tags};
use super::stream::{MADE_ANEW, PING_INTERVAL, Start};
use super::trail::{SEPARATOR, Trail};
use crate::range::RangeReader;
use crate::selection::Selection;
use earlier::{Earlier, Reading, Rest};
use ends::Ends;
use join::Scan;

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
}

impl Moves {
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn start(kafka: &KafkaSettings) -> anyhow::Result<Self> {
        Ok(Self {
            ends: Ends::new(kafka)?,
            scans: RangeReader::start(kafka)?,
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
    /// The id of what comes from here; empty while nothing is known of that.
    here: String,
    earlier: Vec<Earlier>,
    out: mpsc::Sender<Bytes>,
    /// When the old topics last had something.
    heard_at: Instant,
}

impl Client {
    fn new(app: App, selection: Selection, trail: Trail, out: mpsc::Sender<Bytes>) -> Self {
        let tags = tags(&selection);
        let kept = trail.earlier.into_iter().map(|mut seen| {
            seen.keep(&tags);
            Earlier { seen }
        });
        Self {
            app,
            here: trail.here.map(|seen| seen.to_string()).unwrap_or_default(),
            earlier: kept.collect(),
            selection: Arc::new(selection),
            out,
            heard_at: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), Away> {
        let Some(start) = self.begin().await? else {
            // What the old topics have is had before that.
            self.read_earlier(false).await?;
            return self.pass(Start::Unknown).await;
        };
        let mut inner = self.open(Start::After(start)).await?;
        let (mut look, mut wait) = (Instant::now(), LOOK);
        loop {
            tokio::select! {
                chunk = inner.next() => {
                    let Ok(chunk) = chunk.ok_or(Away)?;
                    if frame::has_update(&chunk) {
                        self.read_earlier(true).await?;
                        if self.is_over() {
                            self.send(chunk).await?;
                            return self.pass_on(inner).await;
                        }
                    }
                    self.send_own(&chunk).await?;
                }
                () = sleep_until(look) => {
                    wait = match self.read_earlier(false).await? {
                        true => LOOK,
                        false => (wait * 2).min(LOOK_LATER),
                    };
                    look = Instant::now() + wait;
                }
            }
        }
    }

    /// Where the client begins here; `None` if that is not known.
    async fn begin(&mut self) -> Result<Option<Seen>, Away> {
        if let Ok(seen) = Seen::parse(&self.here) {
            return Ok(Some(join::without_marks(&self.app.moves, seen).await?));
        }
        let earlier: Vec<&Seen> = self.earlier.iter().map(|earlier| &earlier.seen).collect();
        let moves = &self.app.moves;
        let begin = join::begin(moves, &earlier, &self.app.topic, &self.selection).await?;
        self.here = begin.as_ref().map(Seen::to_string).unwrap_or_default();
        Ok(begin)
    }

    async fn open(&self, start: Start) -> Result<super::api::Events, Away> {
        let selection = self.selection.as_ref().clone();
        self.app.open(selection, start).await.map_err(|_| Away)
    }

    /// The stream from here, as it is.
    async fn pass(self, start: Start) -> Result<(), Away> {
        let inner = self.open(start).await?;
        self.pass_on(inner).await
    }

    async fn pass_on(self, mut inner: super::api::Events) -> Result<(), Away> {
        while let Some(Ok(chunk)) = inner.next().await {
            self.send(chunk).await?;
        }
        Ok(())
    }

    /// Whether nothing can come any more from where the assets were before; asked when something has come from here.
    fn is_over(&self) -> bool {
        let is_one = self.selection.assets().count() == 1;
        self.earlier.is_empty() || is_one || self.heard_at.elapsed() >= SETTLED
    }

    /// Passes on what the old topics have by now, or `all` that is written to them even. Whether that was anything.
    async fn read_earlier(&mut self, all: bool) -> Result<bool, Away> {
        let mut found = false;
        let mut at = 0;
        while at < self.earlier.len() {
            let ends = &self.app.moves.ends;
            let end = match all {
                true => self.earlier[at].written_end(ends).await?,
                false => self.earlier[at].visible_end(ends).await?,
            };
            let (before, after) = self.around(at);
            let reading = Reading {
                ranges: &self.app.ranges,
                selection: &self.selection,
                id: &|seen| format!("{before}{seen}{after}"),
            };
            match self.earlier[at].read(&reading, end.as_ref()).await? {
                Rest::Some(bytes) => {
                    (found, self.heard_at) = (true, Instant::now());
                    self.send(bytes).await?;
                }
                Rest::Nothing => at += 1,
                Rest::Gone => {
                    self.earlier.remove(at);
                    // Without a place here a gap is told by what comes next.
                    if !self.here.is_empty() {
                        self.send(frame::gap(MADE_ANEW, &self.id())).await?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// What stands in an id before and behind the part of an old topic.
    fn around(&self, at: usize) -> (String, String) {
        let mut before = self.here.clone();
        for earlier in &self.earlier[..at] {
            append(&mut before, &earlier.seen.to_string());
        }
        if !before.is_empty() {
            before.push(SEPARATOR);
        }
        (before, self.behind(at + 1))
    }

    /// The parts of an id from an old topic on.
    fn behind(&self, at: usize) -> String {
        let mut text = String::new();
        for earlier in &self.earlier[at..] {
            // Writing to a String cannot fail.
            let _ = write!(text, "{SEPARATOR}{}", earlier.seen);
        }
        text
    }

    fn id(&self) -> String {
        format!("{}{}", self.here, self.behind(0))
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Away> {
        self.out.send(bytes).await.map_err(|_| Away)
    }

    /// Passes on what comes from here, with ids that tell of the old topics too.
    async fn send_own(&mut self, chunk: &[u8]) -> Result<(), Away> {
        let behind = self.behind(0);
        let (bytes, last) = with_longer_ids(chunk, &behind);
        if let Some(last) = last {
            self.here = last;
        }
        self.send(bytes).await
    }
}

fn append(text: &mut String, part: &str) {
    if !text.is_empty() {
        text.push(SEPARATOR);
    }
    text.push_str(part);
}

/// Events with something behind each id, and the last id without it.
fn with_longer_ids(chunk: &[u8], behind: &str) -> (Bytes, Option<String>) {
    let mut out = Vec::with_capacity(chunk.len() + behind.len());
    let mut last = None;
    for line in chunk.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"id: ") {
            Some(id) => {
                let id = id.trim_ascii_end();
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(id);
                out.extend_from_slice(behind.as_bytes());
                out.push(b'\n');
                last = Some(String::from_utf8_lossy(id).into_owned());
            }
            None => out.extend_from_slice(line),
        }
    }
    (out.into(), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_of_the_old_topics_too() {
        let chunk = b"event: asset_update\ndata: id: x\nid: t/0/7\n\n: ping\nid: t/0/9\n\n";
        let (bytes, last) = with_longer_ids(chunk, "|old/0/4");
        let expected =
            b"event: asset_update\ndata: id: x\nid: t/0/7|old/0/4\n\n: ping\nid: t/0/9|old/0/4\n\n";
        assert_eq!(&bytes[..], expected);
        assert_eq!(last.as_deref(), Some("t/0/9"));
    }
}
