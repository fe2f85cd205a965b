//! What every service answers in the same way: health, metrics, and what is not there.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;

use super::{ApiError, Routes};
use crate::metrics::Metrics;

/// Adds `/health`, `/metrics` and the answer to unknown paths, and counts all answers by route.
pub fn with_common_routes(routes: Router, metrics: Arc<Metrics>) -> Router {
    routes
        .merge(common_routes().with_state(Arc::clone(&metrics)))
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(metrics, count))
}

/// What every service answers.
#[must_use]
pub fn common_routes() -> Routes<Arc<Metrics>> {
    Routes::new()
        .get("/health", health)
        .get("/metrics", metrics_text)
}

async fn health() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

async fn metrics_text(State(metrics): State<Arc<Metrics>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn unknown_path() -> ApiError {
    ApiError::not_found("there is nothing here; /openapi.json of the router lists what there is")
}

async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let started = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    metrics.answered(route, response.status().as_u16(), started.elapsed());
    response
}
