//! What the routing layer answers for groups and their assets.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt as _;
use ofa_crds::GroupName;
use ofa_crds::groups::Place;
use serde::Serialize;
use serde_json::json;

use super::{Groups, Question};
use crate::http::{ApiError, Routes};
use crate::query;
use crate::router::auth::Permission;
use crate::selection::Selection;

/// When to ask again while the map of assets is read.
const MAP_RETRY: Duration = Duration::from_secs(1);

/// When to ask again for a group whose service is not there yet.
const SERVICE_RETRY: Duration = Duration::from_secs(5);

/// How long an asset's stream may go on where the asset was before.
const MOVED_LOOK: Duration = Duration::from_secs(1);

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
    lag: Option<u64>,
}

#[derive(Debug, Serialize)]
struct AssetAnswer<'a> {
    asset_uuid: &'a str,
    group: Option<&'a GroupName>,
}

/// The routes of groups.
pub(in crate::router) fn routes() -> Routes<Groups> {
    Routes::new()
        .get("/asset_stream", asset_stream)
        .get("/asset_state", asset_state)
        .get("/group/{group}/asset_stream", group_stream)
        .get("/groups", list_groups)
        .get("/assets", list_assets)
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
    let topics = permission.topics();
    let question = Question {
        path,
        query,
        headers,
        topics: topics.as_deref(),
    };
    let answer = groups.pass(&group, question).await?;
    Ok(until(groups.clone().left(selection, group), answer))
}

/// The answer, which breaks off when `end` completes.
fn until(end: impl Future<Output = ()> + Send + 'static, answer: Response) -> Response {
    answer.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(end))))
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
    let topics = permission.topics();
    let question = Question {
        path: "/asset_stream",
        query: query.as_deref(),
        headers: &headers,
        topics: topics.as_deref(),
    };
    groups.pass(&group, question).await
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
            lag: groups.lag(&name),
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
    let number = |name| -> Result<Option<usize>, ApiError> {
        let parsed = parameter(name)?.map(|text| text.parse()).transpose();
        parsed.map_err(|_| ApiError::bad_request(format!("{name} must be a number")))
    };
    let offset = number("offset")?.unwrap_or(0);
    let group = parameter("group")?.filter(|group| !group.is_empty());
    let limit = number("limit")?.unwrap_or(DEFAULT_FOUND).min(MAX_FOUND);
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
        if total > offset && assets.len() < limit {
            assets.push(AssetAnswer { asset_uuid, group });
        }
    }
    Ok(Json(json!({ "total": total, "assets": assets })).into_response())
}

impl Groups {
    /// Records that a group's stream is behind its source.
    fn lag(&self, group: &GroupName) -> Option<u64> {
        let reader = self.registry.reader(group)?;
        self.lags.as_ref()?.of(&reader)
    }

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

    async fn pass(&self, group: &GroupName, question: Question<'_>) -> Result<Response, ApiError> {
        let service = match self.registry.service(group) {
            Some(service) => Some(service),
            None => self.registry.wake(group).await,
        };
        let service = service.ok_or_else(|| {
            ApiError::unavailable("the group has no service at the moment", SERVICE_RETRY)
        })?;
        self.proxy.pass(service, group, question).await
    }

    /// Completes when one of the assets is no longer in the group: its events are written elsewhere from then on, and who listens
    /// here would wait for them for ever.
    async fn left(mut self, selection: Selection, group: GroupName) {
        while self.has_all(&selection, &group) {
            if self.news.changed().await.is_err() {
                return std::future::pending().await;
            }
            // Thousands of assets that register together are looked at once.
            tokio::time::sleep(MOVED_LOOK).await;
        }
    }

    fn has_all(&self, selection: &Selection, group: &GroupName) -> bool {
        let directory = self.directory.read();
        let mut places = selection.assets().map(|asset| directory.place(asset));
        places.all(|place| place == Place::Group(group.clone()))
    }
}

fn not_read() -> ApiError {
    ApiError::unavailable("the map of assets is not read to its end yet", MAP_RETRY)
}
