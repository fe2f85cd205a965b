//! Clients of groups' services, as a browser's EventSource is one.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::JoinHandle;

/// Rest before the next service is tried; browsers are told about a second.
const RETRY: Duration = Duration::from_millis(100);

/// How long a service may be silent before another is tried: longer than its pings are apart.
const SILENCE: Duration = Duration::from_secs(30);

/// What a client has received.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The `data` of each event, in the order of their coming.
    pub events: Vec<String>,
    /// The `data` of each gap.
    pub gaps: Vec<String>,
    /// The last id.
    pub id: String,
    /// How often it was connected.
    pub connects: usize,
}

/// A client that comes back with the last id it was given, at whichever service answers.
#[derive(Debug)]
pub struct EventSource {
    received: Arc<Mutex<Received>>,
    reads: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl EventSource {
    /// Watches assets at the first of `services` (`http://host:port`) that answers.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn start(services: &[String], assets: &[&str]) -> Result<Self> {
        Self::resume(services, assets, String::new())
    }

    /// The same as one that has been given an id before.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn resume(services: &[String], assets: &[&str], id: String) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let encode = |asset: &&str| utf8_percent_encode(asset, NON_ALPHANUMERIC).to_string();
        let assets: Vec<String> = assets.iter().map(encode).collect();
        let url = |base: &String| format!("{base}/asset_stream?asset_uuid={}", assets.join(","));
        let received = Received {
            id,
            ..Received::default()
        };
        let received = Arc::new(Mutex::new(received));
        let reads = Arc::new(AtomicBool::new(true));
        let client = Client {
            http: reqwest::Client::builder()
                .no_proxy()
                .read_timeout(SILENCE)
                .pool_max_idle_per_host(0)
                .build()?,
            urls: services.iter().map(url).collect(),
            received: Arc::clone(&received),
            reads: Arc::clone(&reads),
        };
        Ok(Self {
            received,
            reads,
            task: tokio::spawn(client.run()),
        })
    }

    /// What has come so far.
    #[must_use]
    pub fn received(&self) -> Received {
        lock(&self.received).clone()
    }

    /// Takes nothing from its connection, or goes on to.
    pub fn set_stopped(&self, stopped: bool) {
        self.reads.store(!stopped, Ordering::Relaxed);
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Client {
    http: reqwest::Client,
    urls: Vec<String>,
    received: Arc<Mutex<Received>>,
    reads: Arc<AtomicBool>,
}

impl Client {
    async fn run(self) {
        for url in self.urls.iter().cycle() {
            // A connection that breaks is an end like any other.
            let _ = self.stream(url).await;
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn stream(&self, url: &str) -> Result<()> {
        let id = lock(&self.received).id.clone();
        let mut request = self.http.get(url);
        if !id.is_empty() {
            request = request.header("last-event-id", id);
        }
        let mut response = request.send().await?.error_for_status()?;
        lock(&self.received).connects += 1;
        let mut events = Parser::default();
        while let Some(bytes) = response.chunk().await? {
            events.take(&bytes, &mut lock(&self.received));
            while !self.reads.load(Ordering::Relaxed) {
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(())
    }
}

/// Nobody panics with it.
fn lock(received: &Mutex<Received>) -> std::sync::MutexGuard<'_, Received> {
    received
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The fields of an event that is not complete yet.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    event: String,
    data: String,
    id: Option<String>,
}

impl Parser {
    fn take(&mut self, bytes: &[u8], received: &mut Received) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take_line(&String::from_utf8_lossy(&line), received);
            } else {
                self.line.push(byte);
            }
        }
    }

    fn take_line(&mut self, line: &str, received: &mut Received) {
        match line.split_once(": ") {
            Some(("event", event)) => event.clone_into(&mut self.event),
            Some(("data", data)) => self.data.push_str(data),
            Some(("id", id)) => self.id = Some(id.to_owned()),
            None if line.is_empty() => self.dispatch(received),
            _ => {}
        }
    }

    /// An id counts with its event, never before.
    fn dispatch(&mut self, received: &mut Received) {
        let Self {
            event, data, id, ..
        } = std::mem::take(self);
        received.id = id.unwrap_or_else(|| std::mem::take(&mut received.id));
        match event.as_str() {
            "asset_update" => received.events.push(data),
            "gap" => received.gaps.push(data),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_when_it_is_complete() {
        let (mut parser, mut received) = (Parser::default(), Received::default());
        parser.take(
            b"retry: 5\nid: t/0/1\n\n: ping\nevent: asset_update\nda",
            &mut received,
        );
        parser.take(b"ta: {\"a\": 1}\nid: t/0/2\n", &mut received);
        assert_eq!((received.id.as_str(), received.events.len()), ("t/0/1", 0));
        parser.take(b"\nevent: gap\ndata: {}\n\n", &mut received);
        assert_eq!(received.events, ["{\"a\": 1}"]);
        assert_eq!((received.gaps.len(), received.id.as_str()), (1, "t/0/2"));
    }
}
