//! Asks the replay service: all subscriptions of a client together, a few requests at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use ofa_crds::Cursor;
use ofa_crds::replay::{MAX_ASSETS, ReplayDecodeError, ReplayDecoder};
use reqwest::StatusCode;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::debug;

use super::batch::{self, Deal};
use super::question::{Part, Question, Scope};
use crate::sequencer::Heads;

/// Requests at a time. Questions that come meanwhile go together in the next.
const REQUESTS: usize = 4;

/// How long the service may be silent in the middle of an answer: it reads from Kafka, which may be silent for 10 s.
const SILENCE: Duration = Duration::from_secs(15);

/// How long it may take until somebody answers at the address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Parts that wait for a subscription at most.
const PARTS: usize = 256;

/// How long an answer waits, all in all, for those it is for to take their parts. Then whoever has no room is left out, and asks
/// again from where it is: nobody keeps the others waiting.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is left for each even then: a subscription that takes its parts may not have had its turn yet.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Nobody answers.
    #[error(
        "no replay service answers at {url}: {source}; start one (`serving replay`), or correct the router's REPLAY_URL"
    )]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It refuses.
    #[error("the replay service at {url} answers {status}: {detail}")]
    Refused {
        /// Its address.
        url: String,
        /// HTTP status.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
    /// What answers is no replay service.
    #[error(transparent)]
    Answer(#[from] ReplayDecodeError),
    /// It ended before all was said.
    #[error("the replay service at {0} broke its answer off")]
    BrokenOff(String),
    /// Nothing has come for too long.
    #[error("the replay service is silent; look at its log, and whether Kafka answers it")]
    Silent,
    /// The cursor is of something else.
    #[error("the cursor {cursor} is of another topic than {topic}, which the forwarders read")]
    OtherTopic {
        /// The cursor.
        cursor: Cursor,
        /// The topic.
        topic: String,
    },
    /// The forwarders read another topic.
    #[error(
        "the forwarders read the topic {topic} and not {wanted}; ask the router of a pool that reads {wanted}"
    )]
    WrongTopic {
        /// The topic asked for.
        wanted: String,
        /// The topic there is.
        topic: String,
    },
    /// The router names none.
    #[error(
        "the router names no replay service, which is needed to resume from a cursor; start one (`serving replay`) and give its URL to the router (REPLAY_URL)"
    )]
    None,
}

impl ReplayError {
    /// Whether the service has said that it has no answer for the moment.
    pub(super) fn is_for_now(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::SERVICE_UNAVAILABLE)
    }
}

struct Ask {
    question: Question,
    parts: mpsc::Sender<Part>,
}

/// A client's way to the replay service.
#[derive(Clone)]
pub(crate) struct Replayer {
    url: Arc<parking_lot::Mutex<Option<String>>>,
    asks: mpsc::UnboundedSender<Ask>,
}

impl Replayer {
    /// Starts the task that asks. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub(crate) fn start() -> Result<Self, reqwest::Error> {
        // The service is on the plant's network, where a proxy for the Internet does not lead.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .build()?;
        let url = Arc::<parking_lot::Mutex<Option<String>>>::default();
        let (asks, receiver) = mpsc::unbounded_channel();
        let worker = Worker {
            http,
            url: Arc::clone(&url),
        };
        tokio::spawn(run(Arc::new(worker), receiver));
        Ok(Self { url, asks })
    }

    /// Notes what the router says.
    pub(crate) fn set_url(&self, url: Option<&str>) {
        let mut known = self.url.lock();
        if known.as_deref() != url {
            *known = url.map(str::to_owned);
        }
    }

    /// Whether there is a service.
    pub(crate) fn is_there(&self) -> bool {
        self.url.lock().is_some()
    }

    /// Asks a question; what is dropped is not asked for any more.
    pub(crate) fn ask(&self, question: Question) -> mpsc::Receiver<Part> {
        let (parts, receiver) = mpsc::channel(PARTS);
        // The task lives as long as this.
        let _ = self.asks.send(Ask { question, parts });
        receiver
    }

    /// The topic, and where it ends now.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn heads(&self) -> Result<(String, Heads), Arc<ReplayError>> {
        let mut parts = self.ask(Question {
            // No asset has this name.
            scope: Scope::Asset(String::new()),
            since: Heads::new(),
            from: Heads::new(),
        });
        match parts.recv().await {
            Some(Part::Heads { topic, next }) => Ok((topic, next)),
            Some(Part::Failed(why)) => Err(why),
            _ => Err(Arc::new(ReplayError::Silent)),
        }
    }
}

struct Worker {
    http: reqwest::Client,
    url: Arc<parking_lot::Mutex<Option<String>>>,
}

async fn run(worker: Arc<Worker>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    let turns = Arc::new(Semaphore::new(REQUESTS));
    loop {
        // The semaphore is never closed, so there always is a permit in the end.
        let turn = Arc::new(Arc::clone(&turns).acquire_owned().await.ok());
        let Some(first) = asks.recv().await else {
            return;
        };
        let mut together = vec![first];
        while together.len() < MAX_ASSETS
            && let Ok(next) = asks.try_recv()
        {
            together.push(next);
        }
        let (shards, assets): (Vec<Ask>, Vec<Ask>) = together
            .into_iter()
            .partition(|ask| matches!(ask.question.scope, Scope::Shard(_)));
        // An answer does not say which shard an event is of: one request for each.
        for request in shards.into_iter().map(|ask| vec![ask]).chain([assets]) {
            if !request.is_empty() {
                let (worker, turn) = (Arc::clone(&worker), Arc::clone(&turn));
                tokio::spawn(async move {
                    worker.request(request).await;
                    drop(turn);
                });
            }
        }
    }
}

impl Worker {
    async fn request(&self, mut asks: Vec<Ask>) {
        if let Err(error) = self.answer(&mut asks).await {
            debug!(%error, "the replay service has not answered; asking again");
            let error = Arc::new(error);
            for ask in asks {
                // One that is full will notice that its answer ends.
                let _ = ask.parts.try_send(Part::Failed(Arc::clone(&error)));
            }
        }
    }

    async fn answer(&self, asks: &mut [Ask]) -> Result<(), ReplayError> {
        let url = self.url.lock().clone().ok_or(ReplayError::None)?;
        let request = batch::request(asks.iter().map(|ask| &ask.question));
        let unreachable = |source: reqwest::Error| ReplayError::Unreachable {
            url: url.clone(),
            source: source.without_url(),
        };
        let address = format!("{}/replay", url.trim_end_matches('/'));
        let sent = self.http.post(address).json(&request).send().await;
        let response = sent.map_err(unreachable)?;
        let status = response.status();
        if status != StatusCode::OK {
            let detail = response.text().await.unwrap_or_default();
            return Err(ReplayError::Refused {
                url,
                status,
                detail,
            });
        }
        let mut deal = Deal::new(asks.iter().map(|ask| &ask.question));
        let (mut decoder, mut pieces) = (ReplayDecoder::default(), response.bytes_stream());
        let mut patience = PATIENCE;
        while let Some(piece) = pieces.next().await {
            decoder.push(&piece.map_err(unreachable)?);
            while let Some((line, payload)) = decoder.next_line()? {
                let is_end = line == ofa_crds::replay::ReplayLine::End;
                for (index, part) in deal.take(line, payload) {
                    send(&mut asks[index], part, &mut patience).await;
                }
                if is_end {
                    return Ok(());
                }
            }
            if asks.iter().all(|ask| ask.parts.is_closed()) {
                return Ok(());
            }
        }
        Err(ReplayError::BrokenOff(url))
    }
}

/// Gives a part to a subscription, for which it waits with what is left of the answer's patience. One that has no room by then is
/// left out.
async fn send(ask: &mut Ask, part: Part, patience: &mut Duration) {
    let part = match ask.parts.try_send(part) {
        Err(TrySendError::Full(part)) => part,
        Ok(()) | Err(TrySendError::Closed(_)) => return,
    };
    let begun = Instant::now();
    let room = ask.parts.send_timeout(part, LEAST_PATIENCE.max(*patience));
    let sent = room.await;
    *patience = patience.saturating_sub(begun.elapsed());
    if sent.is_err() {
        ask.parts = mpsc::channel(1).0;
    }
}
