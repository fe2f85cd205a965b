//! The page at `/`, and the description of the interface. Files of the program itself, nothing to install.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing from elsewhere is loaded, and no other site may embed the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The description of the interface.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The page and what it loads.
pub(super) fn routes() -> Router {
    Router::new()
        .route(
            "/",
            get(async || file("text/html", include_str!("index.html"))),
        )
        .route(
            "/page.css",
            get(async || file("text/css", include_str!("page.css"))),
        )
        .route(
            "/stream.js",
            get(async || file("text/javascript", include_str!("stream.js"))),
        )
        .route(
            "/page.js",
            get(async || file("text/javascript", include_str!("page.js"))),
        )
        .route(
            "/openapi.json",
            get(async || file("application/json", OPENAPI)),
        )
}

fn file(kind: &str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        // The page changes with the program only, but a new program must be seen at once.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (
            header::CONTENT_SECURITY_POLICY,
            CONTENT_SECURITY_POLICY.to_owned(),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, text).into_response()
}
