//! Real nats-servers, a router, and a publisher that sends as a forwarder does.
#![allow(dead_code, reason = "every test program uses its part")]

mod servers;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use ofa_client::{Client, Extent, Item, Subscription};
use ofa_crds::shard_map::MapNotice;
use ofa_crds::subject::CONTROL_PREFIX;
use ofa_crds::{Shard, ShardMap};
use ofa_serving::metrics::Metrics;
use ofa_serving::router::{Routing, app};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub(crate) use servers::{free_port, program};

pub(crate) const ASSET: &str = "OKUMA.123456";

/// The pool whose shard map the router answers by.
const POOL: &str = "factory";

/// Long enough for a busy machine; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ports of a node that may not run yet.
#[derive(Clone)]
pub(crate) struct NodePlan {
    pub(crate) name: String,
    pub(crate) port: u16,
    route_port: u16,
    monitor_port: u16,
}

impl NodePlan {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            port: free_port(),
            route_port: free_port(),
            monitor_port: free_port(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts the node and waits until it accepts connections.
    pub(crate) async fn start(&self, shard: &str, others: &[&NodePlan]) -> Node {
        let routes: Vec<String> = others.iter().map(|it| it.route_url()).collect();
        let child = Command::new(program("nats-server"))
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--name", &self.name, "--cluster_name", shard])
            .args(["--http_port", &self.monitor_port.to_string()])
            .args(["--cluster", &self.route_url()])
            .args(["--routes", &routes.join(",")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed: run e2e/tools/setup nats");
        let node = Node {
            child,
            monitor_port: self.monitor_port,
        };
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .is_err()
        {
            assert!(Instant::now() < deadline, "{} does not start", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node
    }

    fn route_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.route_port)
    }
}

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    monitor_port: u16,
}

impl Node {
    /// As `kill -<signal>`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(done.success());
    }
}

/// Waits until as many clients have subscribed on the node.
pub(crate) async fn wait_for_subscriptions(node: &Node, wanted: usize) {
    let url = format!("http://127.0.0.1:{}/connz?subs=1", node.monitor_port);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nobody subscribes");
        if let Ok(answer) = reqwest::get(&url).await {
            let connz: serde_json::Value = answer.json().await.unwrap();
            let connections = connz["connections"].as_array().unwrap();
            let lists = connections
                .iter()
                .filter_map(|it| it["subscriptions_list"].as_array());
            // A connection also listens for news of the shard map.
            let is_of_assets =
                |it: &&serde_json::Value| !it.as_str().unwrap().starts_with(CONTROL_PREFIX);
            if lists.flatten().filter(is_of_assets).count() >= wanted {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the node has sent as many messages to clients, and they have had time to be taken in.
pub(crate) async fn wait_for_delivery(node: &Node, wanted: u64) {
    let url = format!("http://127.0.0.1:{}/varz", node.monitor_port);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the messages are not delivered");
        let answer = reqwest::get(&url).await.unwrap();
        let varz: serde_json::Value = answer.json().await.unwrap();
        if varz["out_msgs"].as_u64().unwrap() >= wanted {
            tokio::time::sleep(Duration::from_millis(200)).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn shard(name: &str, nodes: &[&NodePlan]) -> Shard {
    Shard {
        name: name.parse().unwrap(),
        urls: nodes.iter().map(|it| it.url()).collect(),
        advertised_urls: vec![],
    }
}

pub(crate) fn routing(epoch: u64, shards: Vec<Shard>) -> Routing {
    let map = ShardMap::from_ring(epoch, shards, 128).unwrap();
    Routing::by(Some(POOL.to_owned()), Arc::new(map))
}

/// A router whose map the test changes.
pub(crate) struct TestRouter {
    pub(crate) url: String,
    pub(crate) routing: watch::Sender<Routing>,
}

pub(crate) async fn router(routing: Routing) -> TestRouter {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = watch::channel(routing);
    let app = app(receiver, Arc::new(Metrics::new("router")));
    tokio::spawn(ofa_serving::http::serve(
        listener,
        app,
        std::future::pending(),
    ));
    TestRouter {
        url,
        routing: sender,
    }
}

pub(crate) fn client(router: &TestRouter) -> Client {
    Client::new(&router.url).unwrap()
}

/// Tells clients of a shard of a new map, as forwarders do.
pub(crate) async fn tell(url: &str, routing: &Routing) {
    let Routing::Known {
        pool: Some(pool),
        map,
        ..
    } = routing
    else {
        panic!("a map of a pool is to be told of");
    };
    let notice = serde_json::to_vec(&MapNotice::of(map)).unwrap();
    let connection = async_nats::connect(url).await.unwrap();
    let subject = ofa_crds::subject::map_notice(pool);
    connection.publish(subject, notice.into()).await.unwrap();
    connection.flush().await.unwrap();
}

/// Sends an event every few milliseconds, offsets 0, 3, 6, ..., as a forwarder does.
pub(crate) struct Publisher {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Publisher {
    pub(crate) async fn start(urls: &[String], knows_prev: bool) -> Self {
        let mut connections = Vec::new();
        for url in urls {
            connections.push(async_nats::connect(url).await.unwrap());
        }
        let (stop, next) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&next));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let index = counter.fetch_add(1, Ordering::Relaxed);
                for connection in &connections {
                    publish(connection, index, knows_prev).await;
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            for connection in &connections {
                connection.flush().await.unwrap();
            }
        });
        Self { stop, next, task }
    }

    /// Stops and returns the last offset sent.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        (self.next.load(Ordering::Relaxed) - 1) * 3
    }
}

pub(crate) async fn publish(connection: &async_nats::Client, index: u64, knows_prev: bool) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("ofa_assets/2/{}", index * 3));
    if knows_prev && index > 0 {
        headers.insert("Ofa-Prev-Offset", ((index - 1) * 3).to_string());
    }
    let subject = ofa_crds::subject::asset_token(ASSET) + ".Xpos";
    let payload = format!(r#"{{"VALUE":{index},"attributes":{{}}}}"#);
    connection
        .publish_with_headers(subject, headers, payload.into())
        .await
        .unwrap();
}

pub(crate) async fn next(subscription: &mut Subscription) -> Item {
    timeout(PATIENCE, subscription.next_item())
        .await
        .expect("nothing arrives any more")
        .expect("the subscription goes on")
}

/// Everything up to and including the first item that is wanted.
pub(crate) async fn until(
    subscription: &mut Subscription,
    wanted: impl Fn(&Item) -> bool,
) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        let item = next(subscription).await;
        let found = wanted(&item);
        items.push(item);
        if found {
            return items;
        }
    }
}

/// Everything that is still to come up to the event at `last`.
pub(crate) async fn receive_rest(
    subscription: &mut Subscription,
    items: &mut Vec<Item>,
    last: u64,
) {
    if items.iter().filter_map(offset).max() < Some(last) {
        items.extend(until(subscription, |item| offset(item) == Some(last)).await);
    }
}

pub(crate) fn offset(item: &Item) -> Option<u64> {
    match item {
        Item::Event(event) => event.cursor.as_ref().map(|cursor| cursor.offset),
        _ => None,
    }
}

/// Checks that from the first event on every offset was either received, in order, or announced as missing.
/// Returns how many were missing.
pub(crate) fn account(items: &[Item], last: u64) -> u64 {
    let mut expected = items.iter().find_map(offset).expect("some event arrived");
    let mut missing = 0;
    for item in items {
        match item {
            Item::Event(event) => {
                let offset = event.cursor.as_ref().unwrap().offset;
                assert_eq!(offset, expected, "silently lost or out of order");
                expected += 3;
            }
            Item::Gap(gap) => match &gap.extent {
                Extent::Missed { first, last, .. } => {
                    assert_eq!(
                        *first,
                        expected - 2,
                        "the gap begins behind what was received"
                    );
                    assert!(last % 3 == 0, "the gap ends at an event of the asset");
                    missing += (last - expected) / 3 + 1;
                    expected = last + 3;
                }
                Extent::Possible { first, last, .. } => {
                    assert_eq!(*first, expected - 2);
                    missing += (last + 1 - expected) / 3;
                    expected = last + 1;
                }
                Extent::Unknown => panic!("an extent that could be known: {gap:?}"),
            },
            _ => {}
        }
    }
    assert_eq!(expected, last + 3, "the end is missing");
    missing
}
