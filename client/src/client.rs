//! The entry: one routing layer and the connections to its shards.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ofa_crds::{AssetUuid, Cursor, subject};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::connection::ShardConnection;
use crate::error::ClientError;
use crate::follow;
use crate::map_state::{MapState, News};
use crate::pump::Pump;
use crate::replay::join::{CHECK_INTERVAL, resume};
use crate::replay::{Join, ReplayError, Replayer, Scope};
use crate::router::{Route, RouterClient, RouterError, Shards};
use crate::sequencer::Heads;
use crate::source::Source;
use crate::subscription::{Since, SubscribeOptions, Subscription};

/// Requests to the router at a time: enough to ask for 1,000 assets in a moment, too few to hurt.
const CONCURRENT_LOOKUPS: usize = 16;

/// How long a new subscription waits to learn where the topic ends; without, it begins a little later.
const HEADS_TIMEOUT: Duration = Duration::from_secs(2);

/// Rest before it asks again.
const HEADS_RETRY: Duration = Duration::from_millis(500);

/// The same for one that resumes, which cannot begin without.
const RESUME_TIMEOUT: Duration = Duration::from_secs(15);

/// News of the shard map that wait to be looked at: every forwarder of a pool tells every shard's connection, and all say the same.
const NEWS: usize = 64;

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
    /// About how often the router is asked whether the shard map has changed, beside when a shard says so: one small request for the
    /// whole client. 12 s if not set: clients have 30 s to move when owners change, so this leaves room for another attempt.
    pub map_interval: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            name: "ofa-client".to_owned(),
            credentials: None,
            map_interval: Duration::from_secs(12),
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
    pub(crate) replayer: Replayer,
    /// How often subscriptions ask whether they missed anything: the same for all of a process, so that they ask
    /// together, and another in each process.
    check_interval: Duration,
    pub(crate) options: ClientOptions,
    connections: Mutex<HashMap<String, Weak<ShardConnection>>>,
    /// Where connections tell of the shard map.
    news: mpsc::Sender<News>,
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
        let (news, told) = mpsc::channel(NEWS);
        let shared = Arc::new(Shared {
            router: RouterClient::new(url)?,
            replayer: Replayer::start().map_err(RouterError::Setup)?,
            check_interval: CHECK_INTERVAL.mul_f64(rand::random_range(0.8..=1.0)),
            options,
            connections: Mutex::default(),
            news,
            lookups: Semaphore::new(CONCURRENT_LOOKUPS),
        });
        let (changes, map) = watch::channel(MapState::default());
        tokio::spawn(follow::follow_map(Arc::downgrade(&shared), told, changes));
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

    /// The topic that the forwarders read, and for each of its partitions the offset that comes next: everything written
    /// before this call lies below.
    ///
    /// # Errors
    /// When the router names no replay service, or that does not answer.
    pub async fn ends(&self) -> Result<Since, ClientError> {
        if !self.shared.replayer.is_there()
            && let Some(shards) = self.shared.router.shards().await?
        {
            self.shared.replayer.set_url(shards.replay_url.as_deref());
        }
        let ends = self.shared.replayer.heads().await;
        let (topic, next) = ends.map_err(ClientError::Replay)?;
        Ok(Since { topic, next })
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
        let scope = Scope::Asset(asset.as_str().to_owned());
        let join = self.shared.begin(scope, &source, &options).await?;
        let (routes, followed) = watch::channel(route);
        tokio::spawn(follow::follow_route(
            Arc::downgrade(&self.shared),
            asset.clone(),
            self.map.clone(),
            routes,
        ));
        let shared = Arc::clone(&self.shared);
        Ok(Pump::start(shared, source, Some(followed), join, &options))
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
        let replay_url = shards.as_ref().and_then(|it| it.replay_url.as_deref());
        self.shared.replayer.set_url(replay_url);
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
        let scope = Scope::Shard(shard.to_owned());
        let join = self.shared.begin(scope, &source, &options).await?;
        let shared = Arc::clone(&self.shared);
        Ok(Pump::start(shared, source, None, join, &options))
    }
}

impl Shared {
    pub(crate) async fn route(&self, asset: &AssetUuid) -> Result<Route, RouterError> {
        // The semaphore is never closed, so there always is a permit in the end.
        let _permit = self.lookups.acquire().await.ok();
        let route = self.router.route(asset).await?;
        self.replayer.set_url(route.replay_url.as_deref());
        Ok(route)
    }

    /// Settles where a subscription begins, before its first event: what is written after this is not missed.
    async fn begin(
        &self,
        scope: Scope,
        source: &Source,
        options: &SubscribeOptions,
    ) -> Result<Join, ClientError> {
        let mut join = Join::new(scope, self.check_interval);
        let resumes = !options.from.is_empty() || options.since.is_some();
        if !self.replayer.is_there() {
            return if resumes {
                Err(ClientError::Resume(Arc::new(ReplayError::None)))
            } else {
                Ok(join)
            };
        }
        source.flush().await;
        let patience = if resumes {
            RESUME_TIMEOUT
        } else {
            HEADS_TIMEOUT
        };
        let heads = tokio::time::timeout(patience, self.heads(resumes)).await;
        let heads = heads.unwrap_or_else(|_| Err(Arc::new(ReplayError::Silent)));
        match heads {
            Ok((topic, heads)) => {
                let since = match &options.since {
                    Some(since) => begin_at(since, &heads, &topic)?,
                    None => resume(heads, &cursors(&options.from, &topic)?),
                };
                join.begin(&topic, since, resumes, Instant::now());
            }
            Err(why) if resumes => return Err(ClientError::Resume(why)),
            Err(error) => {
                warn!(%error, "what is missed at first cannot be asked for yet");
                join.begin_later(Instant::now());
            }
        }
        Ok(join)
    }

    /// Where the topic ends; one that cannot begin without asks until somebody answers.
    async fn heads(&self, persists: bool) -> Result<(String, Heads), Arc<ReplayError>> {
        loop {
            let answer = self.replayer.heads().await;
            if answer.is_ok() || !persists {
                return answer;
            }
            tokio::time::sleep(HEADS_RETRY).await;
        }
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
        let connection =
            ShardConnection::open(shard, urls, &self.options, self.news.clone()).await?;
        let connection = Arc::new(connection);
        connections.retain(|_, held| held.strong_count() > 0);
        connections.insert(shard.to_owned(), Arc::downgrade(&connection));
        Ok(connection)
    }
}

/// Where each partition of the topic begins.
fn begin_at(since: &Since, heads: &Heads, topic: &str) -> Result<Heads, ClientError> {
    if since.topic != topic {
        let (wanted, topic) = (since.topic.clone(), topic.to_owned());
        let error = ReplayError::WrongTopic { wanted, topic };
        return Err(ClientError::Resume(Arc::new(error)));
    }
    let first = |partition: &u32| since.next.get(partition).copied().unwrap_or(0);
    Ok(heads.keys().map(|it| (*it, first(it))).collect())
}

/// The last offset seen on each partition of the topic that is replayed.
fn cursors(from: &[Cursor], topic: &str) -> Result<BTreeMap<u32, u64>, ClientError> {
    let mut cursors = BTreeMap::new();
    for cursor in from {
        if cursor.topic != topic {
            let (cursor, topic) = (cursor.clone(), topic.to_owned());
            let error = ReplayError::OtherTopic { cursor, topic };
            return Err(ClientError::Resume(Arc::new(error)));
        }
        let offset = cursors.entry(cursor.partition).or_insert(cursor.offset);
        *offset = cursor.offset.max(*offset);
    }
    Ok(cursors)
}
