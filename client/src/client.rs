//! The entry: one routing layer and the connections to its shards.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use ofa_crds::{AssetUuid, subject};
use tokio::sync::{Mutex, Semaphore, watch};

use crate::connection::ShardConnection;
use crate::error::ClientError;
use crate::follow::{self, MapState};
use crate::pump::{Pump, Source};
use crate::router::{Route, RouterClient, RouterError, Shards};
use crate::subscription::{SubscribeOptions, Subscription};

/// Requests to the router at a time: enough to ask for 1,000 assets in a moment, too few to hurt.
const CONCURRENT_LOOKUPS: usize = 16;

/// User and password on NATS.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Name of the connections, shown by NATS' monitoring.
    pub name: String,
    /// User and password; `None` connects as anyone may.
    pub credentials: Option<Credentials>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            name: "ofa-client".to_owned(),
            credentials: None,
        }
    }
}

/// Watches assets by one routing layer. Subscriptions on one shard share a connection.
///
/// Cheap to clone. What a client has opened stays open while it or one of its subscriptions is held.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    map: watch::Receiver<MapState>,
}

/// What client and subscriptions share.
pub(crate) struct Shared {
    pub(crate) router: RouterClient,
    options: ClientOptions,
    connections: Mutex<HashMap<String, Weak<ShardConnection>>>,
    lookups: Semaphore,
}

impl Client {
    /// A client of the router at `url`, with defaults.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Self::with_options(url, ClientOptions::default())
    }

    /// A client of the router at `url`. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn with_options(url: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared {
            router: RouterClient::new(url)?,
            options,
            connections: Mutex::default(),
            lookups: Semaphore::new(CONCURRENT_LOOKUPS),
        });
        let (changes, map) = watch::channel(MapState::default());
        tokio::spawn(follow::follow_map(Arc::downgrade(&shared), changes));
        Ok(Self { shared, map })
    }

    /// Where an asset's events are published now.
    ///
    /// # Errors
    /// When the router is not there, has no shard map yet, or refuses.
    pub async fn route(&self, asset: &AssetUuid) -> Result<Route, RouterError> {
        self.shared.route(asset).await
    }

    /// All shards; `None` from upstream's router, which does not tell.
    ///
    /// # Errors
    /// When the router is not there or has no shard map yet.
    pub async fn shards(&self) -> Result<Option<Shards>, RouterError> {
        self.shared.router.shards().await
    }

    /// Watches all attributes of an asset, with defaults.
    ///
    /// # Errors
    /// When the router gives no answer or the answer cannot be used. A shard that is away is waited for.
    pub async fn subscribe(&self, asset: &AssetUuid) -> Result<Subscription, ClientError> {
        self.subscribe_with(asset, SubscribeOptions::default())
            .await
    }

    /// Watches all attributes of an asset.
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub async fn subscribe_with(
        &self,
        asset: &AssetUuid,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        let route = self.shared.route(asset).await?;
        let source = self.shared.open(&route).await?;
        let (routes, followed) = watch::channel(route);
        tokio::spawn(follow::follow_route(
            Arc::downgrade(&self.shared),
            asset.clone(),
            self.map.clone(),
            routes,
        ));
        Ok(Pump::start(
            Arc::clone(&self.shared),
            source,
            Some(followed),
            options,
        ))
    }

    /// Watches every asset of one shard, whatever the shard map says about them.
    ///
    /// # Errors
    /// When the router gives no answer, tells of no shards (upstream's), or of none of this name.
    pub async fn subscribe_all(
        &self,
        shard: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        /// Two tokens: an asset's event, and never a control message, which has more.
        const EVERY_EVENT: &str = "*.*";
        let shards = self.shared.router.shards().await?;
        let shards = shards.map(|it| it.shards).unwrap_or_default();
        let Some(found) = shards.iter().find(|it| it.name == shard) else {
            let known: Vec<&str> = shards.iter().map(|it| it.name.as_str()).collect();
            return Err(ClientError::UnknownShard {
                name: shard.to_owned(),
                known: known.join(", "),
            });
        };
        let connection = self
            .shared
            .connection(shard, found.nats_urls.clone())
            .await?;
        let source = Source::open(connection, EVERY_EVENT).await?;
        Ok(Pump::start(Arc::clone(&self.shared), source, None, options))
    }
}

impl Shared {
    pub(crate) async fn route(&self, asset: &AssetUuid) -> Result<Route, RouterError> {
        // The semaphore is never closed, so there always is a permit in the end.
        let _permit = self.lookups.acquire().await.ok();
        self.router.route(asset).await
    }

    /// Subscribes where a route says.
    pub(crate) async fn open(&self, route: &Route) -> Result<Source, ClientError> {
        let connection = self.connection(&route.cluster_name, route.urls()).await?;
        let by_rule = || subject::asset_wildcard(&route.asset_id);
        let subject = route.subject.clone().unwrap_or_else(by_rule);
        Source::open(connection, &subject).await
    }

    async fn connection(
        &self,
        shard: &str,
        urls: Vec<String>,
    ) -> Result<Arc<ShardConnection>, ClientError> {
        let mut connections = self.connections.lock().await;
        if let Some(connection) = connections.get(shard).and_then(Weak::upgrade) {
            connection.set_urls(urls).await;
            return Ok(connection);
        }
        let connection = Arc::new(ShardConnection::open(shard, urls, &self.options).await?);
        connections.retain(|_, held| held.strong_count() > 0);
        connections.insert(shard.to_owned(), Arc::downgrade(&connection));
        Ok(connection)
    }
}
