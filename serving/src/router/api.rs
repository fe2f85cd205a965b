//! What the routing layer answers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use ofa_crds::{AssetUuid, Shard, subject};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tower_http::timeout::TimeoutLayer;

use super::auth::{self, Auth};
use super::follow::Routing;
use super::groups::{self, Groups};
use super::lag::ReaderLag;
use super::page;
use crate::http::{self, ApiError, Clients, Routes};
use crate::metrics::Metrics;

/// Longest UUID that is looked up, in bytes. A Kafka key may be longer, but no machine has such a name.
const MAX_UUID_LEN: usize = 4096;

/// When to ask again while there is no shard map: it comes within seconds of the operator's start.
const MAP_RETRY: Duration = Duration::from_secs(1);

/// Answers are computed from memory, or asked of a group's service, which has 30 s to wake and 10 s to answer; one that
/// takes longer is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Clone)]
struct App {
    routing: watch::Receiver<Routing>,
    about: Arc<About>,
}

/// What is told beside the shard map.
#[derive(Default)]
pub struct About {
    /// Where clients of NATS get what they missed.
    pub replay_url: Option<String>,
    /// How far the forwarders are behind.
    pub forwarders: Option<ReaderLag>,
}

impl About {
    fn replay_url(&self) -> Option<&str> {
        self.replay_url.as_deref()
    }
}

/// Who may ask, and how often.
#[derive(Clone, Default)]
pub struct Access {
    /// Who checks tokens; nobody needs one without.
    pub auth: Option<Arc<Auth>>,
    /// Who counts requests; nobody does without.
    pub clients: Option<Arc<Clients>>,
}

/// The routes of the shards, and the page.
pub fn app(routing: watch::Receiver<Routing>, metrics: Arc<Metrics>) -> Router {
    app_with(routing, metrics, None, About::default(), &Access::default())
}

/// All routes: those of the shards and, where there are groups, theirs.
pub fn app_with(
    routing: watch::Receiver<Routing>,
    metrics: Arc<Metrics>,
    groups: Option<Groups>,
    about: About,
    access: &Access,
) -> Router {
    let state = App {
        routing,
        about: Arc::new(about),
    };
    let mut data = shard_routes().with_state(state.clone());
    if let Some(groups) = groups {
        data = data.merge(groups::routes().with_state(groups));
    }
    let require = middleware::from_fn_with_state(access.auth.clone(), auth::require);
    let open = open_routes().with_state(state);
    let mut routes = data.layer(require).merge(open).merge(page::routes());
    if let Some(clients) = &access.clients {
        let bound = middleware::from_fn_with_state(Arc::clone(clients), http::bound);
        routes = routes.layer(bound);
    }
    http::with_common_routes(limited(routes), metrics)
}

fn shard_routes() -> Routes<App> {
    Routes::new()
        .get("/asset", asset_by_query)
        .get("/asset/", asset_by_query)
        .get("/asset/{*uuid}", asset_by_path)
        .get("/shards", shards)
}

/// What holds no data, and is needed before one has a token.
fn open_routes() -> Routes<App> {
    Routes::new().get("/ready", ready).get("/info", info)
}

/// The time to an answer's headers is bounded; that of a stream is not.
fn limited(routes: Router) -> Router {
    routes.layer(TimeoutLayer::with_status_code(
        StatusCode::SERVICE_UNAVAILABLE,
        REQUEST_TIMEOUT,
    ))
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
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_url: Option<&'a str>,
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
    let map = app.routing.borrow().map().map_err(no_map)?;
    let shard = map.shard_of(uuid.as_str().as_bytes());
    let answer = AssetAnswer {
        asset_id: uuid.as_str(),
        cluster_name: shard.name.as_str(),
        nats_url: first_url(shard),
        nats_urls: shard.client_urls(),
        subject: subject::asset_wildcard(uuid.as_str()),
        epoch: map.epoch(),
        replay_url: app.about.replay_url(),
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

fn no_map(issue: String) -> ApiError {
    ApiError::unavailable(issue, MAP_RETRY)
}

/// A shard map holds no shard without URL.
fn first_url(shard: &Shard) -> &str {
    shard.client_urls().first().map_or("", String::as_str)
}

async fn shards(State(app): State<App>) -> Result<Response, ApiError> {
    let (pool, map, assignment) = match app.routing.borrow().clone() {
        Routing::Known {
            pool,
            map,
            assignment,
        } => (pool, map, assignment),
        Routing::Unknown(issue) => return Err(no_map(issue)),
    };
    let shards = map.shards().iter().zip(map.shares());
    let shards: Vec<ShardAnswer<'_>> = shards
        .map(|(shard, share)| ShardAnswer {
            name: shard.name.as_str(),
            nats_urls: shard.client_urls(),
            share,
        })
        .collect();
    let answer = json!({
        "pool": pool,
        "epoch": map.epoch(),
        "assignment": assignment,
        "ranges": map.range_count(),
        "shards": shards,
        "forwarder_lag": app.about.forwarders.as_ref().and_then(ReaderLag::now),
        "replay_url": app.about.replay_url(),
    });
    Ok(Json(answer).into_response())
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
        Routing::Known { pool, map, .. } => (pool.clone(), Some(map.epoch())),
        Routing::Unknown(_) => (None, None),
    };
    let body = json!({
        "service": "router",
        "version": env!("CARGO_PKG_VERSION"),
        "pool": pool,
        "epoch": epoch,
        "replay_url": app.about.replay_url(),
    });
    Json(body).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// A path as OpenAPI writes it; one that ends with a slash is the one without.
    fn documented(path: &str) -> String {
        let path = path.replace("{*", "{");
        match path.strip_suffix('/') {
            Some("") | None => path,
            Some(without) => without.to_owned(),
        }
    }

    #[test]
    fn what_is_answered_is_described_and_nothing_else() {
        let (shards, groups) = (shard_routes(), groups::routes());
        let (open, common) = (open_routes(), http::common_routes());
        let all = [
            shards.paths(),
            groups.paths(),
            open.paths(),
            common.paths(),
            &["/", "/openapi.json"],
        ];
        let answered: BTreeSet<String> = all.concat().into_iter().map(documented).collect();
        let document: Value = serde_json::from_str(page::OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<String> = paths.keys().cloned().collect();
        assert_eq!(answered, described);
        // Parts that are named are there.
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        for (path, what) in paths {
            let names = path.split('{').skip(1).map(|part| part.split('}').next());
            let parameters = what["get"]["parameters"].as_array();
            for name in names.map(Option::unwrap) {
                let of_path = |it: &&Value| it["in"] == "path" && it["name"] == name;
                assert!(parameters.unwrap().iter().any(|it| of_path(&it)), "{path}");
            }
            assert!(what["get"]["summary"].is_string(), "{path}");
        }
    }
}
