//! /metrics, /live and /ready.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::run::RunError;

/// Serves on `address` until the process ends.
///
/// # Errors
/// When the address cannot be had.
pub async fn serve(address: SocketAddr, metrics: Metrics) -> Result<(), RunError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/live", get(|| async { "ok" }))
        .route("/ready", get(ready))
        .with_state(metrics);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics server ended");
        }
    });
    Ok(())
}

async fn metrics_text(State(metrics): State<Metrics>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}

async fn ready(State(metrics): State<Metrics>) -> (StatusCode, String) {
    if metrics.is_ready() {
        (StatusCode::OK, "ready".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, metrics.why_not_ready())
    }
}
