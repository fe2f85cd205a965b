//! `GET /asset_state?asset_uuid=&id=`, in upstream's form.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::warn;

use super::{Item, KsqlState, StateError, StateStore};
use crate::http::ApiError;
use crate::query;

/// When to ask again for what ksqlDB does not tell at the moment.
const RETRY: Duration = Duration::from_secs(2);

/// Where answers come from.
#[derive(Clone)]
pub struct State {
    /// The state that this service keeps, where it reads the topic.
    pub local: Option<Arc<StateStore>>,
    /// A ksqlDB server that keeps it too and is asked first. The local state answers while that one cannot: both say the same.
    pub ksql: Option<KsqlState>,
}

impl State {
    /// Answers for the asset, or for one of its attributes, that the query names.
    ///
    /// # Errors
    /// When the query names no asset, there is nothing of it, or the store fails.
    pub async fn answer(&self, query: Option<&str>) -> Result<Response, ApiError> {
        let parameter = |name| {
            query::parameter(query, name).map_err(|error| ApiError::bad_request(error.to_string()))
        };
        let asset = parameter("asset_uuid")?.filter(|asset| !asset.is_empty());
        let asset = asset.ok_or_else(|| {
            ApiError::bad_request("name an asset: ?asset_uuid=<its UUID, percent-encoded>")
        })?;
        match parameter("id")?.filter(|id| !id.is_empty()) {
            Some(id) => {
                let item = self.item(&asset, &id).await.map_err(failed)?;
                one(&asset, item)
            }
            None => {
                let items = self.items(&asset).await.map_err(failed)?;
                all(&asset, &items)
            }
        }
    }

    /// One attribute of an asset.
    ///
    /// # Errors
    /// When the local store is needed and fails.
    pub async fn item(&self, asset: &str, id: &str) -> Result<Option<Item>, StateError> {
        if let Some(ksql) = &self.ksql {
            match ksql.item(asset, id).await {
                Ok(item) => return Ok(item),
                Err(error) => warn!(%error, "ksqlDB does not tell the state"),
            }
        }
        self.local()?.item(asset, id)
    }

    /// All attributes of an asset, by id.
    ///
    /// # Errors
    /// When the local store is needed and fails.
    pub async fn items(&self, asset: &str) -> Result<Vec<Item>, StateError> {
        if let Some(ksql) = &self.ksql {
            match ksql.items(asset).await {
                Ok(items) => return Ok(items),
                Err(error) => warn!(%error, "ksqlDB does not tell the state"),
            }
        }
        self.local()?.items(asset)
    }

    fn local(&self) -> Result<&StateStore, StateError> {
        self.local.as_deref().ok_or(StateError::KsqlDb)
    }
}

fn one(asset: &str, item: Option<Item>) -> Result<Response, ApiError> {
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

fn all(asset: &str, items: &[Item]) -> Result<Response, ApiError> {
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
fn failed(error: StateError) -> ApiError {
    if matches!(error, StateError::KsqlDb) {
        return ApiError::unavailable(error.to_string(), RETRY);
    }
    warn!(%error, "a question for the state cannot be answered");
    ApiError::internal("the state store failed; see the service's log")
}
