//! Passes a request on to a group's service and its answer back, byte by byte as it comes.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use futures::StreamExt as _;
use ofa_crds::GroupName;
use reqwest::{Client, Url, redirect};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::group::{GROUP_HEADER, TOPICS_HEADER, in_header};
use crate::http::ApiError;

/// How long a service may take to accept a connection: one in the same network does so at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a service may take for its answer's headers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a service may be silent in the middle of an answer: three of the pings that it sends on every stream. One whose machine has
/// gone away says nothing more, not even that; the client comes back and is sent to where the group is then.
const SILENCE: Duration = Duration::from_secs(45);

/// When to ask again for a service that is down: it is being started again by then.
const RETRY: Duration = Duration::from_secs(2);

/// What of a request concerns the service. Anything else, credentials above all, stays here.
const REQUEST_HEADERS: [HeaderName; 2] = [header::ACCEPT, HeaderName::from_static("last-event-id")];

/// What of an answer concerns the client.
const RESPONSE_HEADERS: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    HeaderName::from_static("x-accel-buffering"),
];

/// What is asked of a service.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The path.
    pub path: &'a str,
    /// The query, as it came.
    pub query: Option<&'a str>,
    /// All headers of the request; only some are passed on.
    pub headers: &'a HeaderMap,
    /// Topics of other groups that the client may have events of; all if `None`.
    pub topics: Option<&'a [String]>,
}

/// A client of groups' services. It follows no redirects and uses no proxy of the environment, so that it
/// calls nobody but those it is told to.
#[derive(Clone)]
pub struct Proxy {
    client: Client,
    stop: CancellationToken,
    redirects: bool,
}

impl Proxy {
    /// A client whose streams end with `stop`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(stop: CancellationToken) -> anyhow::Result<Self> {
        Self::with_silence(stop, SILENCE)
    }

    fn with_silence(stop: CancellationToken, silence: Duration) -> anyhow::Result<Self> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(silence)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            client,
            stop,
            redirects: false,
        })
    }

    /// Sends clients to the services in place of asking these for them, if `redirects`.
    #[must_use]
    pub fn redirecting(self, redirects: bool) -> Self {
        Self { redirects, ..self }
    }

    /// Asks the service at `base`, which is to be the one of `group`, for `path` and passes its answer on.
    ///
    /// # Errors
    /// When the service is away or another group's (503) or answers what no service does (502).
    pub async fn pass(
        &self,
        base: Url,
        group: &GroupName,
        Question {
            path,
            query,
            headers,
            topics,
        }: Question<'_>,
    ) -> Result<Response, ApiError> {
        let mut url = base;
        url.set_path(path);
        url.set_query(query);
        if self.redirects {
            return Ok(Redirect::temporary(url.as_str()).into_response());
        }
        let mut request = self.client.get(url).header(GROUP_HEADER, in_header(group));
        if let Some(topics) = topics {
            request = request.header(TOPICS_HEADER, topics.join(","));
        }
        for name in &REQUEST_HEADERS {
            for value in headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let answer = match timeout(ANSWER_TIMEOUT, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_connect() => return Err(self.away(&error.to_string())),
            Ok(Err(error)) => return Err(bad_answer(&error.to_string())),
            Err(_) => return Err(self.away("no answer in time")),
        };
        if answer.status() == StatusCode::MISDIRECTED_REQUEST {
            return Err(self.away("the service of another group has its address"));
        }
        if answer.status().is_redirection() || answer.status().is_informational() {
            return Err(bad_answer("a redirect, which is not followed"));
        }
        Ok(self.answer(answer))
    }

    fn answer(&self, answer: reqwest::Response) -> Response {
        let status = answer.status();
        let mut headers = HeaderMap::new();
        for name in RESPONSE_HEADERS {
            if let Some(value) = answer.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        // A stream that breaks off breaks off for the client too, which then comes back.
        let bytes = answer.bytes_stream();
        let bytes = bytes.take_until(self.stop.clone().cancelled_owned());
        (status, headers, Body::from_stream(bytes)).into_response()
    }

    fn away(&self, why: &str) -> ApiError {
        warn!(why, "a group's service cannot be reached");
        ApiError::unavailable("the group's service cannot be reached; try again", RETRY)
    }
}

fn bad_answer(why: &str) -> ApiError {
    warn!(why, "a group's service gave no usable answer");
    ApiError::bad_gateway("the group's service gave no usable answer", RETRY)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A service whose machine has gone away does not even close its connections.
    #[tokio::test]
    async fn a_stream_that_is_silent_for_too_long_ends() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let service = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: ping\n\n";
            client.write_all(head.as_bytes()).await.unwrap();
            // Until the other side has had enough.
            while client.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
        });
        let silence = Duration::from_millis(200);
        let proxy = Proxy::with_silence(CancellationToken::new(), silence).unwrap();
        let question = Question {
            path: "/asset_stream",
            query: None,
            headers: &HeaderMap::new(),
            topics: None,
        };
        let group = "Weld".parse().unwrap();
        let answer = proxy.pass(base.parse().unwrap(), &group, question).await;
        let mut body = answer.unwrap().into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), ": ping\n\n");
        assert!(body.next().await.unwrap().is_err());
        drop(body);
        service.await.unwrap();
    }
}
