//! What the routing layer answers for groups and their assets.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use ofa_crds::GroupName;
use ofa_crds::groups::Place;
use serde::Serialize;
use serde_json::json;

use super::Groups;
use crate::http::ApiError;
use crate::query;
use crate::router::auth::Permission;
use crate::selection::Selection;

/// When to ask again while the map of assets is read.
const MAP_RETRY: Duration = Duration::from_secs(1);

/// When to ask again for a group whose service is not there yet.
const SERVICE_RETRY: Duration = Duration::from_secs(5);

/// Most assets in one answer of a search.
const MAX_FOUND: usize = 1000;

/// Assets in one answer where the request does not say how many.
const DEFAULT_FOUND: usize = 100;

/// Upstream's words.
const NO_GROUP: &str = "Asset group not found";

#[derive(Debug, Serialize)]
struct GroupAnswer {
    name: GroupName,
    topic: String,
    assets: usize,
    serving: bool,
}

#[derive(Debug, Serialize)]
struct AssetAnswer<'a> {
    asset_uuid: &'a str,
    group: Option<&'a GroupName>,
}

/// The routes of groups.
pub(in crate::router) fn routes(groups: Groups) -> Router {
    Router::new()
        .route("/asset_stream", get(asset_stream))
        .route("/asset_state", get(asset_state))
        .route("/group/{group}/asset_stream", get(group_stream))
        .route("/groups", get(list_groups))
        .route("/assets", get(list_assets))
        .with_state(groups)
}

async fn asset_stream(
    State(groups): State<Groups>,
    Extension(permission): Extension<Permission>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    by_asset(
        &groups,
        &permission,
        "/asset_stream",
        query.as_deref(),
        &headers,
    )
    .await
}

async fn asset_state(
    State(groups): State<Groups>,
    Extension(permission): Extension<Permission>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    by_asset(
        &groups,
        &permission,
        "/asset_state",
        query.as_deref(),
        &headers,
    )
    .await
}

async fn by_asset(
    groups: &Groups,
    permission: &Permission,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let selection = Selection::from_query(query);
    let selection = selection.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let group = groups.group_of(&selection)?;
    check_allowed(permission, &group)?;
    groups.pass(&group, path, query, headers).await
}

async fn group_stream(
    State(groups): State<Groups>,
    Extension(permission): Extension<Permission>,
    Path(group): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let group: GroupName = group.parse().map_err(|_| ApiError::not_found(NO_GROUP))?;
    groups.check_known(&group)?;
    check_allowed(&permission, &group)?;
    groups
        .pass(&group, "/asset_stream", query.as_deref(), &headers)
        .await
}

/// Whether the token allows the group.
fn check_allowed(permission: &Permission, group: &GroupName) -> Result<(), ApiError> {
    if permission.allows(group) {
        return Ok(());
    }
    Err(ApiError::forbidden(
        "the token does not allow this group; ask for one that does",
    ))
}

async fn list_groups(
    State(groups): State<Groups>,
    Extension(permission): Extension<Permission>,
) -> Response {
    let directory = groups.directory.read();
    let mut counts: std::collections::BTreeMap<GroupName, usize> = groups
        .registry
        .groups()
        .into_iter()
        .map(|group| (group, 0))
        .collect();
    counts.extend(
        directory
            .groups()
            .map(|(group, count)| (group.clone(), count)),
    );
    let listed: Vec<GroupAnswer> = counts
        .into_iter()
        .filter(|(group, _)| permission.allows(group))
        .map(|(name, assets)| GroupAnswer {
            topic: name.topic(),
            serving: groups.registry.service(&name).is_some(),
            name,
            assets,
        })
        .collect();
    Json(json!({ "complete": directory.is_caught_up(), "groups": listed })).into_response()
}

async fn list_assets(
    State(groups): State<Groups>,
    Extension(permission): Extension<Permission>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let parameter = |name| {
        let value = query::parameter(query.as_deref(), name);
        value.map_err(|error| ApiError::bad_request(error.to_string()))
    };
    let text = parameter("search")?.unwrap_or_default();
    let group = parameter("group")?.filter(|group| !group.is_empty());
    let limit = match parameter("limit")? {
        None => DEFAULT_FOUND,
        Some(limit) => limit
            .parse::<usize>()
            .map_err(|_| ApiError::bad_request("limit must be a number"))?
            .min(MAX_FOUND),
    };
    let directory = groups.directory.read();
    let mut total = 0;
    let mut assets = Vec::new();
    let allowed = |group: Option<&GroupName>| match group {
        Some(group) => permission.allows(group),
        None => permission == Permission::All,
    };
    let found = directory.search(&text, group.as_deref());
    for (asset_uuid, group) in found.filter(|(_, group)| allowed(*group)) {
        total += 1;
        if assets.len() < limit {
            assets.push(AssetAnswer { asset_uuid, group });
        }
    }
    Ok(Json(json!({ "total": total, "assets": assets })).into_response())
}

impl Groups {
    /// The one group of all the assets asked for.
    fn group_of(&self, selection: &Selection) -> Result<GroupName, ApiError> {
        let directory = self.directory.read();
        let mut found = BTreeSet::new();
        for asset in selection.assets() {
            match directory.place(asset) {
                Place::Group(group) => found.insert(group),
                Place::NoGroup => return Err(ApiError::not_found(NO_GROUP)),
                Place::Unknown if !directory.is_caught_up() => return Err(not_read()),
                Place::Unknown => {
                    return Err(ApiError::not_found(format!("Asset {asset} not found")));
                }
            };
        }
        let group = found.pop_first().filter(|_| found.is_empty());
        group.ok_or_else(|| {
            ApiError::bad_request("these assets are of several groups; send one request for each group (/assets tells them)")
        })
    }

    fn check_known(&self, group: &GroupName) -> Result<(), ApiError> {
        let directory = self.directory.read();
        if directory.has_group(group) || self.registry.groups().contains(group) {
            Ok(())
        } else if directory.is_caught_up() {
            Err(ApiError::not_found(NO_GROUP))
        } else {
            Err(not_read())
        }
    }

    async fn pass(
        &self,
        group: &GroupName,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let service = match self.registry.service(group) {
            Some(service) => Some(service),
            None => self.registry.wake(group).await,
        };
        let service = service.ok_or_else(|| {
            ApiError::unavailable("the group has no service at the moment", SERVICE_RETRY)
        })?;
        self.proxy.pass(service, path, query, headers).await
    }
}

fn not_read() -> ApiError {
    ApiError::unavailable("the map of assets is not read to its end yet", MAP_RETRY)
}
