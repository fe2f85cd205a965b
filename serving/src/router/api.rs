//! What the routing layer answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{MatchedPath, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ofa_crds::{AssetUuid, Shard, ShardMap, subject};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tower_http::timeout::TimeoutLayer;

use super::follow::Routing;
use crate::http::ApiError;
use crate::metrics::Metrics;

/// Longest UUID that is looked up, in bytes. A Kafka key may be longer, but no machine has such a name.
const MAX_UUID_LEN: usize = 4096;

/// When to ask again while there is no shard map: it comes within seconds of the operator's start.
const MAP_RETRY: Duration = Duration::from_secs(1);

/// Every answer is computed from memory; one that takes longer is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct App {
    routing: watch::Receiver<Routing>,
    metrics: Arc<Metrics>,
}

/// All routes of the routing layer.
pub fn app(routing: watch::Receiver<Routing>, metrics: Arc<Metrics>) -> Router {
    let state = App { routing, metrics };
    Router::new()
        .route("/asset", get(asset_by_query))
        .route("/asset/", get(asset_by_query))
        .route("/asset/{*uuid}", get(asset_by_path))
        .route("/shards", get(shards))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/info", get(info))
        .route("/metrics", get(metrics_text))
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            REQUEST_TIMEOUT,
        ))
        .with_state(state)
}

/// Upstream's fields first, then ours.
#[derive(Debug, Serialize)]
struct AssetAnswer<'a> {
    asset_id: &'a str,
    cluster_name: &'a str,
    nats_url: &'a str,
    nats_urls: &'a [String],
    subject: String,
    epoch: u64,
}

#[derive(Debug, Serialize)]
struct ShardAnswer<'a> {
    name: &'a str,
    nats_urls: &'a [String],
    share: f64,
}

#[derive(Debug, Deserialize)]
struct AssetQuery {
    #[serde(default)]
    uuid: String,
}

async fn asset_by_path(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(uuid) = path.map_err(|_| {
        ApiError::bad_request("the asset's UUID in the path must be percent-encoded UTF-8")
    })?;
    asset(&app, &uuid)
}

/// For the two names that no URL path can hold, `.` and `..`, and for whoever likes it better.
async fn asset_by_query(
    State(app): State<App>,
    query: Result<Query<AssetQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(AssetQuery { uuid }) = query.map_err(|_| {
        ApiError::bad_request("the asset's UUID in the query must be percent-encoded UTF-8")
    })?;
    asset(&app, &uuid)
}

fn asset(app: &App, uuid: &str) -> Result<Response, ApiError> {
    let uuid = parse_uuid(uuid)?;
    let map = current_map(app)?;
    let shard = map.shard_of(uuid.as_str().as_bytes());
    let answer = AssetAnswer {
        asset_id: uuid.as_str(),
        cluster_name: shard.name.as_str(),
        nats_url: first_url(shard),
        nats_urls: shard.client_urls(),
        subject: subject::asset_wildcard(uuid.as_str()),
        epoch: map.epoch(),
    };
    Ok(Json(answer).into_response())
}

fn parse_uuid(text: &str) -> Result<AssetUuid, ApiError> {
    if text.len() > MAX_UUID_LEN {
        return Err(ApiError::bad_request(format!(
            "the asset's UUID is longer than {MAX_UUID_LEN} bytes"
        )));
    }
    text.parse()
        .map_err(|_| ApiError::bad_request("name an asset: /asset/<its UUID, percent-encoded>"))
}

fn current_map(app: &App) -> Result<Arc<ShardMap>, ApiError> {
    match &*app.routing.borrow() {
        Routing::Known { map, .. } => Ok(Arc::clone(map)),
        Routing::Unknown(issue) => Err(ApiError::unavailable(issue.clone(), MAP_RETRY)),
    }
}

/// A shard map holds no shard without URL.
fn first_url(shard: &Shard) -> &str {
    shard.client_urls().first().map_or("", String::as_str)
}

async fn shards(State(app): State<App>) -> Result<Response, ApiError> {
    let map = current_map(&app)?;
    let shards = map.shards().iter().zip(map.shares());
    let shards: Vec<ShardAnswer<'_>> = shards
        .map(|(shard, share)| ShardAnswer {
            name: shard.name.as_str(),
            nats_urls: shard.client_urls(),
            share,
        })
        .collect();
    let answer = json!({
        "epoch": map.epoch(),
        "ranges": map.range_count(),
        "shards": shards,
    });
    Ok(Json(answer).into_response())
}

async fn health() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

async fn ready(State(app): State<App>) -> Response {
    match &*app.routing.borrow() {
        Routing::Known { .. } => Json(json!({ "status": "ready" })).into_response(),
        Routing::Unknown(issue) => {
            let body = json!({ "status": "not ready", "issues": { "shard_map": issue } });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn info(State(app): State<App>) -> Response {
    let (pool, epoch) = match &*app.routing.borrow() {
        Routing::Known { pool, map } => (pool.clone(), Some(map.epoch())),
        Routing::Unknown(_) => (None, None),
    };
    let body = json!({
        "service": "router",
        "version": env!("CARGO_PKG_VERSION"),
        "pool": pool,
        "epoch": epoch,
    });
    Json(body).into_response()
}

async fn metrics_text(State(app): State<App>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match app.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn unknown_path() -> ApiError {
    ApiError::not_found("there is nothing here; try /asset/<uuid>, /shards, /ready or /metrics")
}

async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let started = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    app.metrics
        .answered(route, response.status().as_u16(), started.elapsed());
    response
}
