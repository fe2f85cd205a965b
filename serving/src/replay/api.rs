//! What the replay service answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use ofa_crds::ShardMap;
use ofa_crds::replay::{MAX_ASSETS, ReplayRequest};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::answer::{Answer, Sources};
use super::lanes::Slice;
use super::tail::{Status, Tail};
use crate::http::{self, ApiError};
use crate::router::Routing;

/// Longest request: the most assets, each with a long name and some offsets.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Answers that are written at a time. Each has some pages in memory; further ones wait.
const MAX_ANSWERS: usize = 64;

/// How long a request waits for its turn before the client is sent away for a moment.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// When to come back.
const RETRY: Duration = Duration::from_secs(1);

/// Pages that wait for one client at most.
const PAGES_AHEAD: usize = 2;

/// The service.
#[derive(Clone)]
pub(super) struct App {
    pub(super) sources: Sources,
    pub(super) status: watch::Receiver<Status>,
    pub(super) routing: watch::Receiver<Routing>,
    pub(super) stop: CancellationToken,
}

#[derive(Clone)]
struct Served {
    app: App,
    turns: Arc<Semaphore>,
}

/// All routes.
pub(super) fn app(app: App) -> Router {
    let metrics = Arc::clone(&app.sources.metrics);
    let served = Served {
        app,
        turns: Arc::new(Semaphore::new(MAX_ANSWERS)),
    };
    let routes = Router::new()
        .route("/replay", post(replay))
        .route("/ready", get(ready))
        .route("/info", get(info))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(served);
    http::with_common_routes(routes, metrics)
}

async fn replay(
    State(served): State<Served>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let request: ReplayRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("the request cannot be read: {error}")))?;
    if request.assets() > MAX_ASSETS {
        return Err(ApiError::bad_request(format!(
            "a request may name {MAX_ASSETS} assets at most; send several"
        )));
    }
    let tail = tail(&served.app)?;
    let slices = slices(&served.app, &request)?;
    let turn = Arc::clone(&served.turns).acquire_owned();
    let Ok(Ok(turn)) = tokio::time::timeout(TURN_PATIENCE, turn).await else {
        let detail = "too many clients catch up at the moment";
        return Err(ApiError::unavailable(detail, RETRY));
    };
    let (out, pages) = mpsc::channel(PAGES_AHEAD);
    let gone = out.clone();
    let answer = Answer::new(served.app.sources.clone(), tail, out);
    tokio::spawn(async move {
        tokio::select! {
            // Clients ask the next process for the rest.
            () = served.app.stop.cancelled() => {}
            // What it waits for takes a place that others need.
            () = gone.closed() => {}
            written = answer.write(&request, &slices) => if let Err(error) = written {
                debug!(%error, "an answer is broken off; the client asks again");
            },
        }
        drop(turn);
    });
    let pages = stream::unfold(pages, |mut pages| async {
        let page = pages.recv().await?;
        Some((Ok::<_, Infallible>(page), pages))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ofa-replay")];
    Ok((kind, Body::from_stream(pages)).into_response())
}

fn tail(app: &App) -> Result<Arc<Tail>, ApiError> {
    match &*app.status.borrow() {
        Status::Ready(tail) => Ok(Arc::clone(tail)),
        Status::NotReady(why) => Err(ApiError::unavailable(why.clone(), RETRY)),
    }
}

/// The shards that are asked for, by the map of now; one for each ask.
fn slices(app: &App, request: &ReplayRequest) -> Result<Vec<Option<Slice>>, ApiError> {
    let slice = |name: &String| {
        let map = map(app)?;
        Slice::of(&map, name).ok_or_else(|| {
            ApiError::not_found(format!("there is no shard '{name}' in the shard map"))
        })
    };
    let asks = request.asks.iter();
    asks.map(|ask| ask.shard.as_ref().map(slice).transpose())
        .collect()
}

fn map(app: &App) -> Result<Arc<ShardMap>, ApiError> {
    let map = app.routing.borrow().map();
    map.map_err(|why| ApiError::unavailable(why, RETRY))
}

async fn ready(State(served): State<Served>) -> Response {
    match &*served.app.status.borrow() {
        Status::Ready(_) => Json(json!({ "status": "ready" })).into_response(),
        Status::NotReady(why) => {
            let body = json!({ "status": "not ready", "issues": { "topic": why } });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn info(State(served): State<Served>) -> Response {
    let body = json!({
        "service": "replay",
        "version": env!("CARGO_PKG_VERSION"),
        "topic": *served.app.sources.topic,
    });
    Json(body).into_response()
}
