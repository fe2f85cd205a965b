//! What a group's service answers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ofa_crds::GroupName;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use super::awake::Use;
use super::group_header;
use super::hub::Hub;
use super::reader::Status;
use super::stream::{self, Sources, Start};
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

/// The name that polyfills of EventSource give the last id, where they cannot send a header.
const ID_PARAMETERS: [&str; 2] = ["lastEventId", "last_event_id"];

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct App {
    pub(super) group: GroupName,
    pub(super) topic: Arc<str>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) ranges: RangeReader<Selection>,
    pub(super) state: state::State,
    pub(super) metrics: Arc<Metrics>,
    pub(super) used: Arc<Use>,
    pub(super) stop: CancellationToken,
}

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
    let start = start(&app.topic, query, &headers)?;
    let sources = Sources {
        hub: app.hub()?,
        ranges: app.ranges.clone(),
        stop: app.stop.clone(),
    };
    app.used.mark();
    let guard = app.metrics.stream_opened();
    let events = stream::events(sources, selection, start);
    let body = futures::StreamExt::inspect(events, move |_| {
        // Lives as long as the body.
        let _ = &guard;
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        // For nginx, which would hold events back until a buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// The header wins: EventSource sends it when it reconnects, while its URL stays what it was.
fn start(topic: &str, query: Option<&str>, headers: &HeaderMap) -> Result<Start, ApiError> {
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
    Ok(Start::from_last_event_id(id.as_deref(), topic))
}

async fn asset_state(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    group_header::check(&headers, &app.group)?;
    if app.state.ksql.is_none() {
        app.hub()?;
    }
    app.used.mark();
    app.state.answer(query.as_deref()).await
}

async fn ready(State(app): State<App>) -> Response {
    match &*app.status.borrow() {
        Status::Serving(_) => Json(json!({ "status": "ready" })).into_response(),
        Status::NotReady(issue) => {
            let body = json!({ "status": "not ready", "issues": { "stream": issue } });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn info(State(app): State<App>) -> Response {
    let position = match &*app.status.borrow() {
        Status::Serving(hub) => Some(hub.position().to_string()),
        Status::NotReady(_) => None,
    };
    let body = json!({
        "service": "group",
        "version": env!("CARGO_PKG_VERSION"),
        "group": app.group,
        "topic": app.topic.as_ref(),
        "position": position,
        "streams": app.metrics.streams(),
    });
    Json(body).into_response()
}

impl App {
    fn hub(&self) -> Result<Arc<Hub>, ApiError> {
        match &*self.status.borrow() {
            Status::Serving(hub) => Ok(Arc::clone(hub)),
            Status::NotReady(issue) => Err(ApiError::unavailable(issue.clone(), READY_RETRY)),
        }
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn bad_request(error: impl std::error::Error) -> ApiError {
    ApiError::bad_request(error.to_string())
}
