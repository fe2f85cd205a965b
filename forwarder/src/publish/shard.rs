//! The task that publishes to one shard: keeps a session, sends again what was not witnessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::connection::Node;
use super::notices::Notices;
use super::session::{Heard, Session, SessionError, WitnessMode, second_node};
use super::window::{MarkerGap, Window};
use super::{Batch, Confirmed, SinkId};
use crate::credentials::Access;
use crate::metrics::Metrics;

/// How long a marker may stay away before the session counts as broken. Nodes answer in milliseconds,
/// under full load in tens; a stopped node must cost its assets seconds at most.
const MARKER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes published behind one marker at most, so that confirmations keep coming in a long burst.
const BYTES_PER_MARKER: usize = 256 * 1024;

/// First and longest pause between two attempts to reach a shard.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A session that lived shorter than this is not begun anew at once: what ended it may end the next too.
const SHORT_SESSION: Duration = Duration::from_secs(1);

/// Buffers kept for use again; more in flight than this is rare.
const SPARE_BUFFERS: usize = 16;

/// What the consuming side holds of a shard's task.
pub(crate) struct ShardHandle {
    pub(crate) sink: SinkId,
    pub(crate) name: String,
    batches: mpsc::UnboundedSender<Batch>,
    shared: Arc<Shared>,
    urls: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct Shared {
    in_flight: AtomicUsize,
    max_payload: AtomicUsize,
    connected: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl ShardHandle {
    /// Bytes handed over and not yet confirmed.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Largest message the shard takes, in bytes.
    pub(crate) fn max_payload(&self) -> usize {
        self.shared.max_payload.load(Ordering::Relaxed)
    }

    /// Whether a session is open.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed) > 0
    }

    /// An empty batch, with a buffer used before where there is one.
    pub(crate) fn new_batch(&self) -> Batch {
        Batch::new(self.shared.spare.lock().pop().unwrap_or_default())
    }

    /// Hands a batch over to be published. It is held until it is confirmed.
    pub(crate) fn send(&self, batch: Batch) {
        self.shared
            .in_flight
            .fetch_add(batch.frames().len(), Ordering::Relaxed);
        // The task ends only after this handle is dropped.
        let _ = self.batches.send(batch);
    }

    /// Tells the task where the shard's nodes are now.
    pub(crate) fn set_urls(&self, urls: &[String]) {
        self.urls.send_if_modified(|old| {
            let changed = old != urls;
            if changed {
                old.clear();
                old.extend_from_slice(urls);
            }
            changed
        });
    }
}

/// What a shard's task needs to begin.
pub(crate) struct ShardSettings {
    pub(crate) sink: SinkId,
    pub(crate) name: String,
    pub(crate) urls: Vec<String>,
    pub(crate) access: Access,
    pub(crate) member: String,
    /// What its clients are told of new maps; `None` where there are none.
    pub(crate) notices: Option<Notices>,
}

/// nats-server's default for `max_payload`, assumed until a node has told its own.
const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// Starts a shard's task. It runs until the handle is dropped and everything is confirmed.
pub(crate) fn spawn(
    settings: ShardSettings,
    confirmed: mpsc::UnboundedSender<Confirmed>,
    metrics: Arc<Metrics>,
) -> ShardHandle {
    let (batches, inbox) = mpsc::unbounded_channel();
    let (urls, urls_now) = watch::channel(settings.urls);
    let shared = Arc::new(Shared {
        max_payload: DEFAULT_MAX_PAYLOAD.into(),
        ..Shared::default()
    });
    let task = Task {
        sink: settings.sink,
        name: settings.name.clone(),
        member: ofa_crds::subject::asset_token(&settings.member),
        access: settings.access,
        urls: urls_now,
        inbox,
        notices: settings.notices,
        window: Window::default(),
        shared: shared.clone(),
        confirmed,
        metrics,
        marker: Vec::with_capacity(128),
        unmarked: 0,
    };
    tokio::spawn(task.run());
    ShardHandle {
        sink: settings.sink,
        name: settings.name,
        batches,
        shared,
        urls,
    }
}

struct Task {
    sink: SinkId,
    name: String,
    member: String,
    access: Access,
    urls: watch::Receiver<Vec<String>>,
    inbox: mpsc::UnboundedReceiver<Batch>,
    notices: Option<Notices>,
    window: Window,
    shared: Arc<Shared>,
    confirmed: mpsc::UnboundedSender<Confirmed>,
    metrics: Arc<Metrics>,
    /// The frame of the marker at hand.
    marker: Vec<u8>,
    /// Bytes published since the last marker.
    unmarked: usize,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("everything is confirmed and nobody hands over more")]
    Done,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Gap(#[from] MarkerGap),
    #[error("no marker has come back for {} s", MARKER_TIMEOUT.as_secs())]
    MarkerStalled,
    #[error("the node is about to stop")]
    LameDuck,
    #[error("the node objects: {0}")]
    Objection(String),
    #[error("a second node can be reached again")]
    SecondNode,
    #[error("the shard's nodes have changed")]
    NodesChanged,
}

impl Task {
    async fn run(mut self) {
        let mut pause = RETRY.0;
        loop {
            let began = Instant::now();
            match self.open().await {
                Ok(session) => {
                    let end = self.drive(session).await;
                    self.set_disconnected();
                    if matches!(end, End::Done) {
                        return;
                    }
                    warn!(cluster = self.name, reason = %end, "the session ended; everything not witnessed is sent again");
                }
                Err(error) => {
                    self.metrics.publish_failure(&self.name);
                    warn!(cluster = self.name, %error, "the shard cannot be reached; trying on");
                    if self.is_done() {
                        return;
                    }
                }
            }
            if began.elapsed() > SHORT_SESSION {
                pause = RETRY.0;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn open(&mut self) -> Result<Session, SessionError> {
        let mut nodes = self.nodes()?;
        // Forwarders spread over the nodes, and a node that just failed is not always asked first.
        nodes.shuffle(&mut rand::rng());
        let session =
            Session::open(&nodes, &self.access, &self.member, self.window.largest()).await?;
        let (publisher, witness) = session.nodes();
        info!(cluster = self.name, publisher, witness, mode = ?session.mode(), "publishing");
        self.shared
            .max_payload
            .store(session.max_payload(), Ordering::Relaxed);
        self.shared.connected.store(1, Ordering::Relaxed);
        self.metrics
            .set_witness_mode(&self.name, Some(session.mode()));
        Ok(session)
    }

    fn nodes(&mut self) -> Result<Vec<Node>, SessionError> {
        let urls = self.urls.borrow_and_update();
        Ok(urls
            .iter()
            .map(|url| Node::parse(url))
            .collect::<Result<_, _>>()?)
    }

    fn set_disconnected(&self) {
        self.shared.connected.store(0, Ordering::Relaxed);
        self.metrics.set_witness_mode(&self.name, None);
    }

    /// Publishes and confirms until something ends the session.
    async fn drive(&mut self, mut session: Session) -> End {
        self.window.restart();
        self.unmarked = 0;
        if let Some(notices) = &mut self.notices {
            notices.repeat();
        }
        let mut marker_deadline = Instant::now() + MARKER_TIMEOUT;
        let second_node = self.watch_for_second_node(&session);
        tokio::pin!(second_node);
        loop {
            if self.is_done() {
                return End::Done;
            }
            let open = !self.inbox.is_closed();
            let unsent = self.window.unsent().is_some();
            let result = tokio::select! {
                biased;
                heard = session.heard() => match heard {
                    Ok(Heard::Ping(from)) => session.answer(from).await.map_err(End::from),
                    heard => self.on_heard(heard, &mut marker_deadline),
                },
                batch = self.inbox.recv(), if open || !self.inbox.is_empty() => {
                    self.on_batch(batch, &mut marker_deadline);
                    Ok(())
                }
                notice = next_notice(&mut self.notices) => session.publish(&notice, b"").await.map_err(End::from),
                () = std::future::ready(()), if unsent => self.publish_next(&mut session).await,
                () = sleep_until(marker_deadline), if self.window.awaits_marker() => Err(End::MarkerStalled),
                () = &mut second_node => Err(End::SecondNode),
                Ok(()) = self.urls.changed(), if open => Err(End::NodesChanged),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    /// Ends when a session with a single node could have a second; never for one that has two.
    fn watch_for_second_node(&mut self, session: &Session) -> impl Future<Output = ()> + use<> {
        let nodes = self.nodes().unwrap_or_default();
        let single = session.mode() == WitnessMode::SameNode && nodes.len() > 1;
        let (access, member) = (self.access.clone(), self.member.clone());
        let first = session.nodes().0.to_owned();
        async move {
            if single {
                second_node(&nodes, &access, &member, &first).await;
            } else {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.inbox.is_closed() && self.inbox.is_empty() && self.window.is_empty()
    }

    fn on_heard(
        &mut self,
        heard: Result<Heard, SessionError>,
        marker_deadline: &mut Instant,
    ) -> Result<(), End> {
        match heard? {
            Heard::Marker(number) => {
                *marker_deadline = Instant::now() + MARKER_TIMEOUT;
                for batch in self.window.confirm(number)? {
                    self.shared
                        .in_flight
                        .fetch_sub(batch.frames().len(), Ordering::Relaxed);
                    self.metrics.confirmed(&self.name, &batch);
                    let (spans, buffer) = batch.into_parts();
                    let mut spare = self.shared.spare.lock();
                    if spare.len() < SPARE_BUFFERS {
                        spare.push(buffer);
                    }
                    drop(spare);
                    // Nobody listens only when the forwarder is on its way out.
                    let _ = self.confirmed.send(Confirmed {
                        sink: self.sink,
                        spans,
                    });
                }
                Ok(())
            }
            Heard::LameDuck => Err(End::LameDuck),
            Heard::Objection(objection) => Err(End::Objection(objection)),
            Heard::Ping(_) | Heard::Nothing => Ok(()),
        }
    }

    fn on_batch(&mut self, batch: Option<Batch>, marker_deadline: &mut Instant) {
        if let Some(batch) = batch {
            if !self.window.awaits_marker() {
                *marker_deadline = Instant::now() + MARKER_TIMEOUT;
            }
            self.window.push(batch);
        }
    }

    /// Publishes the oldest unsent batch, and a marker behind it when it is the last or enough has gathered.
    async fn publish_next(&mut self, session: &mut Session) -> Result<(), End> {
        self.window.sent();
        let size = self.window.last_sent().map_or(0, |it| it.frames().len());
        self.unmarked += size;
        self.marker.clear();
        if self.window.unsent().is_none() || self.unmarked >= BYTES_PER_MARKER {
            let number = self.window.mark();
            session.push_marker(&mut self.marker, number);
            self.unmarked = 0;
        }
        let Some(batch) = self.window.last_sent() else {
            return Ok(());
        };
        self.metrics.published(&self.name, batch);
        Ok(session.publish(batch.frames(), &self.marker).await?)
    }
}

async fn next_notice(notices: &mut Option<Notices>) -> Vec<u8> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}
