//! What a group's service answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use ofa_crds::GroupName;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use super::arrivals::Arrivals;
use super::awake::Use;
use super::group_header;
use super::hub::Hub;
use super::moved::{self, Moves};
use super::nats::{self, NatsFeed};
use super::reader::Status;
use super::stream::{self, Sources, Start};
use super::trail::Came;
use crate::http::{self, ApiError};
use crate::metrics::Metrics;
use crate::query;
use crate::range::RangeReader;
use crate::selection::Selection;
use crate::state;

/// When to ask again while the topic is read: seconds after a start, as a rule.
const READY_RETRY: Duration = Duration::from_secs(1);

/// Until an answer's headers; everything is computed from memory or the local store.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request for the state waits while the topic is read for it: less than any may take.
const STATE_PATIENCE: Duration = Duration::from_secs(8);

/// The name that polyfills of EventSource give the last id, where they cannot send a header.
const ID_PARAMETERS: [&str; 2] = ["lastEventId", "last_event_id"];

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct App {
    pub(super) group: GroupName,
    pub(super) topic: Arc<str>,
    pub(super) feed: Feed,
    /// How far the topic is read, where it is.
    pub(super) status: Option<watch::Receiver<Status>>,
    /// Begins to read it for the state, where it is not read for streams.
    pub(super) asked: Arc<Notify>,
    pub(super) ranges: RangeReader<Selection>,
    pub(super) moves: Moves,
    pub(super) state: state::State,
    pub(super) metrics: Arc<Metrics>,
    pub(super) used: Arc<Use>,
    pub(super) stop: CancellationToken,
}

/// Where the events of streams come from.
#[derive(Clone)]
pub(super) enum Feed {
    /// From the topic.
    Topic,
    /// Through NATS.
    Nats(NatsFeed),
}

/// Events of one client.
pub(super) type Events = BoxStream<'static, Result<Bytes, Infallible>>;

/// All routes of a group's service.
pub(super) fn app(app: App) -> Router {
    let metrics = Arc::clone(&app.metrics);
    let routes = Router::new()
        .route("/asset_stream", get(asset_stream))
        .route("/asset_state", get(asset_state))
        .route("/ready", get(ready))
        .route("/info", get(info))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            REQUEST_TIMEOUT,
        ))
        .with_state(app);
    http::with_common_routes(routes, metrics)
}

async fn asset_stream(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    group_header::check(&headers, &app.group)?;
    let query = query.as_deref();
    let selection = Selection::from_query(query).map_err(bad_request)?;
    let came = came(&app.topic, query, &headers)?;
    app.used.mark();
    let body = match came {
        Came::Here(start) => {
            let events = app.open(selection, start, Arrivals::default()).await?;
            app.body(events)
        }
        Came::From(trail) => {
            app.check_ready()?;
            app.body(moved::events(
                app.clone(),
                selection,
                trail.allowed(&headers),
            ))
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        // For nginx, which would hold events back until a buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// The header wins: EventSource sends it when it reconnects, while its URL stays what it was.
fn came(topic: &str, query: Option<&str>, headers: &HeaderMap) -> Result<Came, ApiError> {
    let header = headers.get("last-event-id").map(HeaderValue::to_str);
    let mut id = match header {
        // No id of ours, so it is told as unknown.
        Some(Err(_)) => Some("?".to_owned()),
        Some(Ok(id)) => Some(id.to_owned()),
        None => None,
    };
    for name in ID_PARAMETERS {
        if id.is_none() {
            id = query::parameter(query, name).map_err(bad_request)?;
        }
    }
    Ok(Came::from_last_event_id(id.as_deref(), topic))
}

async fn asset_state(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    group_header::check(&headers, &app.group)?;
    if app.state.ksql.is_none() {
        app.read_state().await?;
    }
    app.used.mark();
    app.state.answer(query.as_deref()).await
}

async fn ready(State(app): State<App>) -> Response {
    match app.trouble() {
        None => Json(json!({ "status": "ready" })).into_response(),
        Some(issue) => {
            let body = json!({ "status": "not ready", "issues": { "stream": issue } });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn info(State(app): State<App>) -> Response {
    let (position, subscriptions) = match &app.feed {
        Feed::Topic => (app.hub().ok().map(|hub| hub.position().to_string()), None),
        Feed::Nats(feed) => (None, Some(feed.subscriptions())),
    };
    let body = json!({
        "service": "group",
        "version": env!("CARGO_PKG_VERSION"),
        "group": app.group,
        "topic": app.topic.as_ref(),
        "position": position,
        "subscriptions": subscriptions,
        "streams": app.metrics.streams(),
    });
    Json(body).into_response()
}

impl App {
    /// The events of a selection, from the group's feed.
    ///
    /// # Errors
    /// When there are none to be had at the moment.
    pub(super) async fn open(
        &self,
        selection: Selection,
        start: Start,
        arrivals: Arrivals,
    ) -> Result<Events, ApiError> {
        self.check_ready()?;
        Ok(match &self.feed {
            Feed::Topic => {
                let sources = Sources {
                    hub: self.hub()?,
                    ranges: self.ranges.clone(),
                    stop: self.stop.clone(),
                };
                stream::events(sources, selection, start, arrivals).boxed()
            }
            Feed::Nats(feed) => {
                let begun = feed.begin(start).await;
                let begun = begun.map_err(|why| ApiError::unavailable(why, READY_RETRY))?;
                let sources = nats::Sources {
                    lanes: feed.lanes(),
                    ranges: self.ranges.clone(),
                    stop: self.stop.clone(),
                };
                nats::events(sources, selection, begun, arrivals).boxed()
            }
        })
    }

    fn check_ready(&self) -> Result<(), ApiError> {
        match &self.feed {
            Feed::Topic => self.hub().map(drop),
            Feed::Nats(feed) => match feed.trouble() {
                Some(trouble) => Err(ApiError::unavailable(trouble, READY_RETRY)),
                None => Ok(()),
            },
        }
    }

    /// What was read of the topic.
    fn hub(&self) -> Result<Arc<Hub>, ApiError> {
        match self.status.as_ref().map(|status| status.borrow().clone()) {
            Some(Status::Serving(hub)) => Ok(hub),
            Some(Status::NotReady(issue)) => Err(ApiError::unavailable(issue, READY_RETRY)),
            None => Err(ApiError::unavailable(
                "the topic is not read here",
                READY_RETRY,
            )),
        }
    }

    /// Why clients cannot be served.
    fn trouble(&self) -> Option<String> {
        if let Feed::Nats(feed) = &self.feed {
            return feed.trouble();
        }
        match &*self.status.as_ref()?.borrow() {
            Status::Serving(_) => None,
            Status::NotReady(issue) => Some(issue.clone()),
        }
    }

    /// Has the state read as far as the topic went when it was first asked for.
    async fn read_state(&self) -> Result<(), ApiError> {
        if let (Feed::Nats(_), Some(status)) = (&self.feed, &self.status) {
            self.asked.notify_one();
            let mut status = status.clone();
            let read = status.wait_for(|status| matches!(status, Status::Serving(_)));
            // What is not read by then is told below.
            let _ = tokio::time::timeout(STATE_PATIENCE, read).await;
        }
        self.hub().map(drop)
    }

    /// A stream's body, which counts for as long as it lasts.
    fn body(&self, events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Body {
        let guard = self.metrics.stream_opened();
        Body::from_stream(events.inspect(move |_| {
            // Lives as long as the body.
            let _ = &guard;
        }))
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn bad_request(error: impl std::error::Error) -> ApiError {
    ApiError::bad_request(error.to_string())
}
