//! Asking the routing layer.

use std::time::Duration;

use ofa_crds::AssetUuid;
use ofa_crds::shard_map::Assignment;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What may stand unencoded in a path or query (RFC 3986, "unreserved").
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The router answers from memory; one that takes longer is not there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is quoted in an error, in bytes.
const MAX_QUOTE: usize = 200;

/// Where an asset's events are published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The asset's UUID.
    pub asset_id: String,
    /// Name of the shard.
    pub cluster_name: String,
    /// Client URL of one node.
    pub nats_url: String,
    /// Client URLs of all nodes; empty from upstream's router.
    #[serde(default)]
    pub nats_urls: Vec<String>,
    /// Subject that covers all of the asset's events; `None` from upstream's router.
    #[serde(default)]
    pub subject: Option<String>,
    /// Epoch of the shard map; `None` from upstream's router.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// URL of the replay service; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_url: Option<String>,
}

impl Route {
    /// Every node that can be connected to.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        if self.nats_urls.is_empty() {
            vec![self.nats_url.clone()]
        } else {
            self.nats_urls.clone()
        }
    }
}

/// All shards.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Shards {
    /// The ForwarderPool whose shard map it is; `None` for one from the router's environment.
    #[serde(default)]
    pub pool: Option<String>,
    /// Epoch of the shard map.
    pub epoch: u64,
    /// Digest of where clients are sent: while it is the same, no asset has moved. `None` from a router that does not tell it.
    #[serde(default)]
    pub assignment: Option<Assignment>,
    /// The shards, in the map's order.
    pub shards: Vec<ShardInfo>,
    /// URL of the replay service; `None` where there is none.
    #[serde(default)]
    pub replay_url: Option<String>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ShardInfo {
    /// Name on the ring.
    pub name: String,
    /// Client URLs of all nodes.
    pub nats_urls: Vec<String>,
    /// Share of the assets, 0 to 1.
    pub share: f64,
}

/// Why the router gave no answer.
#[derive(Debug, Error)]
pub enum RouterError {
    /// Nobody answers.
    #[error(
        "no router answers at {url}: {source}; start one (`serving router`), or name it with --router or ASSET_ROUTER_URL"
    )]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It has no shard map yet.
    #[error("the router at {url} is not ready: {detail}; try again in {} s", retry_after.as_secs())]
    NotReady {
        /// Its address.
        url: String,
        /// What it waits for.
        detail: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// It refuses the request.
    #[error("the router at {url} answers {status}: {detail}")]
    Refused {
        /// Its address.
        url: String,
        /// HTTP status.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
    /// What answers is no router.
    #[error(
        "what answers at {url} is no asset router: {source}; check --router or ASSET_ROUTER_URL"
    )]
    Answer {
        /// Its address.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// No HTTP client can be made.
    #[error("cannot set up HTTP: {0}")]
    Setup(reqwest::Error),
}

/// One routing layer.
#[derive(Debug, Clone)]
pub struct RouterClient {
    http: reqwest::Client,
    base: String,
}

impl RouterClient {
    /// The router at `url`, `http://127.0.0.1:8002` say. Nothing is asked yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: &str) -> Result<Self, RouterError> {
        // A program that has chosen a provider keeps it; this one is for all others.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // The router is on the plant's network, where a proxy for the Internet does not lead.
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(RouterError::Setup)?;
        Ok(Self {
            http,
            base: url.trim_end_matches('/').to_owned(),
        })
    }

    /// Where an asset's events are published.
    ///
    /// # Errors
    /// When the router is not there, has no shard map yet, or refuses.
    pub async fn route(&self, asset: &AssetUuid) -> Result<Route, RouterError> {
        self.get(&asset_path(asset.as_str())).await
    }

    /// All shards; `None` from upstream's router, which does not tell.
    ///
    /// # Errors
    /// When the router is not there or has no shard map yet.
    pub async fn shards(&self) -> Result<Option<Shards>, RouterError> {
        match self.get("/shards").await {
            Ok(shards) => Ok(Some(shards)),
            Err(RouterError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, RouterError> {
        let url = format!("{}{path}", self.base);
        let unreachable = |source: reqwest::Error| RouterError::Unreachable {
            url: self.base.clone(),
            source: source.without_url(),
        };
        let response = self.http.get(&url).send().await.map_err(unreachable)?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = response.bytes().await.map_err(unreachable)?;
        let url = self.base.clone();
        match status {
            StatusCode::OK => {
                serde_json::from_slice(&body).map_err(|source| RouterError::Answer { url, source })
            }
            StatusCode::SERVICE_UNAVAILABLE => Err(RouterError::NotReady {
                url,
                detail: detail_of(&body),
                retry_after,
            }),
            status => Err(RouterError::Refused {
                url,
                status,
                detail: detail_of(&body),
            }),
        }
    }
}

/// No path can hold a segment `.` or `..`, however it is encoded.
fn asset_path(uuid: &str) -> String {
    let encoded = utf8_percent_encode(uuid, ENCODED);
    if matches!(uuid, "." | "..") {
        format!("/asset?uuid={encoded}")
    } else {
        format!("/asset/{encoded}")
    }
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// The `detail` of an error answer, or its beginning.
fn detail_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Detail {
        detail: String,
    }
    match serde_json::from_slice::<Detail>(body) {
        Ok(Detail { detail }) => detail,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(MAX_QUOTE)]).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_uuid_fits_into_a_url() {
        assert_eq!(asset_path("OKUMA.123456"), "/asset/OKUMA.123456");
        assert_eq!(asset_path("a/b ü?#"), "/asset/a%2Fb%20%C3%BC%3F%23");
        assert_eq!(asset_path("a/.."), "/asset/a%2F..");
        assert_eq!(asset_path(".."), "/asset?uuid=..");
    }
}
