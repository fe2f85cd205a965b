//! One connection to one shard, shared by all subscriptions on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, Statistics, Subscriber};
use futures::StreamExt;
use ofa_crds::subject::MAP_NOTICES;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::client::ClientOptions;
use crate::error::ClientError;
use crate::map_state::News;

/// A node that is silent is given up after three of these (async-nats allows two unanswered pings): a stopped
/// process is noticed within 3 s, and an idle connection costs a few bytes a second.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a node may take to greet. The kernel still accepts connections for a stopped process.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a subscription may take to be written to a node; one that is not connected to is not waited for.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Every failed attempt adds this much delay to the next, up to [`MAX_DELAY`].
const DELAY_STEP: Duration = Duration::from_millis(20);

/// Longest delay between two attempts: what is published meanwhile is missed, so the attempts stay frequent.
const MAX_DELAY: Duration = Duration::from_millis(200);

/// Up to this much is added at random, so that a node's clients do not all arrive at the next one at once.
const JITTER_MS: u64 = 50;

/// Messages of one subscription that async-nats holds until its pump takes them. The pump takes them whatever its consumer does, so this
/// only has to last while the process does not get the CPU.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// What is known about the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) connected: bool,
    /// How often it was lost.
    pub(crate) losses: u64,
    /// How often async-nats has thrown messages away.
    pub(crate) overflows: u64,
}

/// The connection; closed when the last one who holds it lets go.
pub(crate) struct ShardConnection {
    pub(crate) shard: String,
    client: async_nats::Client,
    statistics: Arc<Statistics>,
    link: watch::Receiver<LinkState>,
    urls: parking_lot::Mutex<Vec<String>>,
    /// Ends with the connection.
    _listener: JoinSet<()>,
}

impl ShardConnection {
    /// Begins to connect; goes on until a node answers.
    pub(crate) async fn open(
        shard: &str,
        urls: Vec<String>,
        options: &ClientOptions,
        news: mpsc::Sender<News>,
    ) -> Result<Self, ClientError> {
        let (state, link) = watch::channel(LinkState::default());
        let client = connect_options(shard, options, state)
            .connect(urls.clone())
            .await
            .map_err(|source| ClientError::Connect {
                shard: shard.to_owned(),
                urls: urls.join(", "),
                source,
            })?;
        let mut listener = JoinSet::new();
        listener.spawn(listen(client.clone(), link.clone(), news));
        Ok(Self {
            shard: shard.to_owned(),
            statistics: client.statistics(),
            client,
            link,
            urls: urls.into(),
            _listener: listener,
        })
    }

    pub(crate) async fn subscribe(&self, subject: &str) -> Result<Subscriber, ClientError> {
        let subscribed = self.client.subscribe(subject.to_owned()).await;
        subscribed.map_err(|source| ClientError::Subscribe {
            shard: self.shard.clone(),
            subject: subject.to_owned(),
            source,
        })
    }

    /// Waits until everything asked of the node is written to it, or until that takes too long.
    pub(crate) async fn flush(&self) {
        // What the node has not read yet then, it is asked about again later.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.client.flush()).await;
    }

    pub(crate) fn link(&self) -> watch::Receiver<LinkState> {
        self.link.clone()
    }

    /// How often a connection was made. Changes before any message of the new connection is delivered.
    pub(crate) fn connects(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }

    /// Name of the node it is connected to, or was last.
    pub(crate) fn node(&self) -> String {
        self.client.server_info().server_name
    }

    /// Takes over a changed list of nodes for the next time one is needed.
    pub(crate) async fn set_urls(&self, urls: Vec<String>) {
        if *self.urls.lock() == urls {
            return;
        }
        match self.client.set_server_pool(urls.clone()).await {
            Ok(()) => *self.urls.lock() = urls,
            Err(error) => {
                warn!(shard = self.shard, %error, "the changed list of nodes is not usable; the old one stays");
            }
        }
    }
}

/// Passes on what the shard says of the shard map. What there is no room for is found out by asking, as what is lost.
async fn listen(
    client: async_nats::Client,
    mut link: watch::Receiver<LinkState>,
    news: mpsc::Sender<News>,
) {
    let mut notices = match client.subscribe(MAP_NOTICES).await {
        Ok(notices) => notices,
        Err(error) => {
            debug!(%error, "news of the shard map cannot be subscribed to");
            return;
        }
    };
    let mut losses = link.borrow_and_update().losses;
    loop {
        let next = tokio::select! {
            message = notices.next() => match message {
                Some(message) => notice(&message),
                None => return,
            },
            changed = link.changed() => match changed {
                Ok(()) => reconnected(*link.borrow_and_update(), &mut losses),
                Err(_) => return,
            },
        };
        if let Some(next) = next {
            let _ = news.try_send(next);
        }
    }
}

fn notice(message: &async_nats::Message) -> Option<News> {
    let notice = serde_json::from_slice(&message.payload);
    let notice = notice
        .inspect_err(|error| debug!(subject = %message.subject, %error, "news of a shard map are passed over"))
        .ok()?;
    Some(News::Notice {
        subject: message.subject.to_string(),
        notice,
    })
}

fn reconnected(link: LinkState, losses: &mut u64) -> Option<News> {
    let again = link.connected && link.losses > *losses;
    if again {
        *losses = link.losses;
    }
    again.then_some(News::Reconnected)
}

fn connect_options(
    shard: &str,
    options: &ClientOptions,
    state: watch::Sender<LinkState>,
) -> ConnectOptions {
    let shard = shard.to_owned();
    let state = Arc::new(state);
    let base = match &options.credentials {
        Some(it) => ConnectOptions::with_user_and_password(it.user.clone(), it.password.clone()),
        None => ConnectOptions::new(),
    };
    base.name(&options.name)
        .retry_on_initial_connect()
        // The router names every node, by the address that clients can reach.
        .ignore_discovered_servers()
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECTION_TIMEOUT)
        .reconnect_delay_callback(reconnect_delay)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .event_callback(move |event| {
            note(&state, &shard, &event);
            std::future::ready(())
        })
}

fn reconnect_delay(attempts: usize) -> Duration {
    let failed = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let jitter = Duration::from_millis(rand::rng().random_range(0..=JITTER_MS));
    DELAY_STEP.saturating_mul(failed).min(MAX_DELAY) + jitter
}

fn note(state: &watch::Sender<LinkState>, shard: &str, event: &Event) {
    match event {
        Event::Connected => {
            state.send_modify(|link| link.connected = true);
        }
        Event::Disconnected => {
            state.send_modify(|link| {
                link.connected = false;
                link.losses += 1;
            });
        }
        Event::SlowConsumer(_) => {
            state.send_modify(|link| link.overflows += 1);
        }
        Event::ServerError(error) => warn!(shard, %error, "the shard reports an error"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_stay_frequent_however_many_fail() {
        assert!(reconnect_delay(1) <= Duration::from_millis(JITTER_MS));
        for attempts in [11, 1000, usize::MAX] {
            let delay = reconnect_delay(attempts);
            assert!(
                delay >= MAX_DELAY && delay <= Duration::from_millis(250),
                "{delay:?}"
            );
        }
    }
}
