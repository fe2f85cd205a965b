//! Errors as upstream's services answer them: `{"detail": "..."}`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// The request itself is wrong; `detail` says what to send instead.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail, None)
    }

    /// There is nothing at this path.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail, None)
    }

    /// Not now; ask again after `retry_after` (whole seconds).
    #[must_use]
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail, Some(retry_after))
    }

    /// A service behind this one answered nonsense; ask again after `retry_after` (whole seconds).
    #[must_use]
    pub fn bad_gateway(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, detail, Some(retry_after))
    }

    /// The request is meant for another service.
    #[must_use]
    pub fn misdirected(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, detail, None)
    }

    /// Something in this service is broken; `detail` says where to look.
    #[must_use]
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail, None)
    }

    /// No token, or none that is valid; `detail` says what to send.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail, None)
    }

    /// The token does not allow it.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail, None)
    }

    /// More requests than this client may send; ask again after `retry_after` (whole seconds, one at least).
    #[must_use]
    pub fn too_many(retry_after: Duration) -> Self {
        let wait = Duration::from_secs(retry_after.as_secs() + 1);
        let detail = "too many requests from this address; send fewer, or raise CLIENT_RATE";
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail, Some(wait))
    }

    fn new(status: StatusCode, detail: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self {
            status,
            detail: detail.into(),
            retry_after,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "detail": self.detail }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(retry_after) = self.retry_after {
            let seconds = HeaderValue::from(retry_after.as_secs());
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
