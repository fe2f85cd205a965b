//! `GET /asset_state?asset_uuid=&id=`, in upstream's form.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::warn;

use super::{Item, StateStore};
use crate::http::ApiError;
use crate::query;

/// Answers for the asset, or for one of its attributes, that the query names.
///
/// # Errors
/// When the query names no asset, there is nothing of it, or the store fails.
pub fn answer(store: &StateStore, query: Option<&str>) -> Result<Response, ApiError> {
    let parameter = |name| {
        query::parameter(query, name).map_err(|error| ApiError::bad_request(error.to_string()))
    };
    let asset = parameter("asset_uuid")?.filter(|asset| !asset.is_empty());
    let asset = asset.ok_or_else(|| {
        ApiError::bad_request("name an asset: ?asset_uuid=<its UUID, percent-encoded>")
    })?;
    match parameter("id")?.filter(|id| !id.is_empty()) {
        Some(id) => one(store, &asset, &id),
        None => all(store, &asset),
    }
}

fn one(store: &StateStore, asset: &str, id: &str) -> Result<Response, ApiError> {
    let item = store.item(asset, id).map_err(failed)?;
    let Item {
        id,
        value,
        kind,
        tag,
        timestamp,
    } = item.ok_or_else(nothing)?;
    let body = json!({
        "asset_uuid": asset,
        "id": id,
        "value": value,
        "type": kind,
        "tag": tag,
        "timestamp": timestamp,
    });
    Ok(Json(body).into_response())
}

fn all(store: &StateStore, asset: &str) -> Result<Response, ApiError> {
    let items = store.items(asset).map_err(failed)?;
    if items.is_empty() {
        return Err(nothing());
    }
    Ok(Json(json!({ "asset_uuid": asset, "dataItems": items })).into_response())
}

fn nothing() -> ApiError {
    ApiError::not_found("No data found for the given asset_uuid and id.")
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn failed(error: super::StateError) -> ApiError {
    warn!(%error, "a question for the state cannot be answered");
    ApiError::internal("the state store failed; see the service's log")
}
