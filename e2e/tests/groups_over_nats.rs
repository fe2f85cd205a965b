//! A group's service of several instances that share NATS: clients go from one to another, and to one that reads the
//! topic, and have every event of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ofa_crds::subject::{MAP_NOTICES, asset_wildcard};
use ofa_e2e::forwarder::Settings;
use ofa_e2e::kafka::Record;
use ofa_e2e::nats::Shard;
use ofa_e2e::scene::{Scene, scenario};
use ofa_e2e::serving::Serving;
use ofa_e2e::sse::EventSource;
use ofa_e2e::wait;

/// One of them has a name that a subject cannot hold as it is.
const ASSETS: [&str; 5] = ["A0", "A1", "A2", "Halle 3.A", "HEAVY"];

/// The one with large events, for clients that do not read.
const HEAVY: usize = 4;

/// Together more than sockets take: 18 MB.
const HEAVY_EVENTS: u64 = 6_000;
const HEAVY_BYTES: usize = 3_000;

/// How long anything may take, on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(60);

/// An event's text, as it stands in the topic.
fn event(asset: usize, number: u64) -> String {
    let padding = if asset == HEAVY {
        "x".repeat(HEAVY_BYTES)
    } else {
        String::new()
    };
    let name = ASSETS[asset];
    // Spaces and the order of members are the producer's own.
    format!(
        r#"{{"VALUE": {number}, "ID": "count", "TAG": "{name}", "attributes": {{"p": "{padding}"}}}}"#
    )
}

fn record(asset: usize, number: u64) -> Record {
    Record {
        key: Some(ASSETS[asset].into()),
        value: Some(event(asset, number).into()),
        // Assets of one client share a partition, and others have one of their own.
        partition: i32::try_from(asset).unwrap_or(0) % 2,
    }
}

/// Events of all assets but the heavy one, until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Load {
    fn start(scene: &Scene) -> Self {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (broker, topic) = (scene.broker().twin(), scene.topic().to_owned());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let first = count.load(Ordering::Relaxed);
                let numbers = first..first + 10;
                let records =
                    numbers.flat_map(|number| (0..HEAVY).map(move |asset| record(asset, number)));
                broker.produce(&topic, &records.collect::<Vec<_>>())?;
                count.store(first + 10, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            Ok(())
        });
        Self {
            stop,
            written,
            task,
        }
    }

    /// Waits until so many more events of each asset are written.
    async fn more(&self, count: u64) -> Result<()> {
        let wanted = self.written.load(Ordering::Relaxed) + count;
        wait::until("more events", LIMIT, async || {
            ensure!(!self.task.is_finished(), "the load has ended");
            Ok(self.written.load(Ordering::Relaxed) >= wanted)
        })
        .await
    }

    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.written.load(Ordering::Relaxed))
    }
}

struct Stage {
    shards: Vec<Shard>,
    /// Two that share NATS, and one that reads the topic.
    services: Vec<Serving>,
    _replay: Serving,
    _router: Serving,
}

async fn stage(scene: &Scene) -> Result<Stage> {
    let shards = scene.shards(2, 1).await?;
    let urls = Settings::urls_of(&shards);
    let broker = scene.broker().address();
    let replay = Serving::replay_verbatim(&broker, scene.topic(), &urls, scene.folder()).await?;
    let router = Serving::router(&urls, Some(&replay), scene.folder()).await?;
    let nats = [
        ("CLIENT_QUEUE_KIB", "64"),
        ("NATS_ROUTER_URL", &router.url()),
    ];
    let service = |name: &str, settings| {
        Serving::group(name, &broker, scene.topic(), settings, scene.folder())
    };
    let services = vec![
        service("nats-1", &nats[..])?,
        service("nats-2", &nats)?,
        service("topic", &nats[..1])?,
    ];
    Ok(Stage {
        shards,
        services,
        _replay: replay,
        _router: router,
    })
}

async fn start(service: &mut Serving) -> Result<()> {
    service.run()?;
    service.wait_ready().await
}

/// A client and the assets it watches, by number.
struct Client {
    source: EventSource,
    assets: Vec<usize>,
}

impl Client {
    fn start(services: &[String], assets: &[usize]) -> Result<Self> {
        let names: Vec<&str> = assets.iter().map(|asset| ASSETS[*asset]).collect();
        Ok(Self {
            source: EventSource::start(services, &names)?,
            assets: assets.to_vec(),
        })
    }

    async fn is_connected(&self) -> Result<()> {
        let connected = async || Ok(!self.source.received().id.is_empty());
        wait::until("a client to be connected", LIMIT, connected).await
    }

    /// Every event of its assets, byte by byte, in order, once.
    async fn must_be_complete(&self, name: &str, written: u64) -> Result<()> {
        let count = |asset: usize| {
            if asset == HEAVY {
                HEAVY_EVENTS
            } else {
                written
            }
        };
        let expected: u64 = self.assets.iter().map(|asset| count(*asset)).sum();
        let arrived = async || Ok(self.source.received().events.len() as u64 >= expected);
        // What is missing is said below.
        let _ = wait::until("all events", LIMIT, arrived).await;
        let received = self.source.received();
        ensure!(
            received.gaps.is_empty(),
            "{name} was told of {:?}",
            received.gaps
        );
        let mut by_asset: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
        for event in &received.events {
            let is_of = |asset: &&usize| event.contains(&format!("\"{}\"", ASSETS[**asset]));
            let asset = self.assets.iter().find(is_of);
            let asset = asset.with_context(|| format!("{name} has not asked for {event}"))?;
            by_asset.entry(*asset).or_default().push(event);
        }
        for asset in &self.assets {
            let events = by_asset.remove(asset).unwrap_or_default();
            let named = ASSETS[*asset];
            let got = events.len() as u64;
            ensure!(
                got == count(*asset),
                "{name} has {got} events of {named}, there are {}",
                count(*asset)
            );
            for (number, got) in (0..).zip(events) {
                ensure!(
                    *got == event(*asset, number),
                    "{name}: event {number} of {named} is {got}"
                );
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_move_between_instances_and_miss_nothing() {
    scenario("groups-over-nats", async |scene| {
        let mut stage = stage(scene).await?;
        let mut settings = scene.settings("f1", &stage.shards);
        settings
            .variables
            .push(("PAYLOAD".to_owned(), "Verbatim".to_owned()));
        let mut forwarder = scene.start(settings)?;
        forwarder.wait_ready().await?;
        let (one, two, topic) = (0, 1, 2);
        for service in [one, two] {
            start(&mut stage.services[service]).await?;
        }
        let urls: Vec<String> = stage.services.iter().map(Serving::url).collect();
        let from = |first: usize| -> Vec<String> {
            urls.iter().cycle().skip(first).take(3).cloned().collect()
        };
        let clients = [
            ("three assets at 1", Client::start(&from(one), &[0, 1, 2])?),
            ("one asset at 1", Client::start(&from(one), &[1])?),
            ("the same at 1", Client::start(&from(one), &[1])?),
            ("two assets at 2", Client::start(&from(two), &[1, 3])?),
            ("the heavy one at 2", Client::start(&from(two), &[HEAVY])?),
            ("stopped at 2", Client::start(&from(two), &[HEAVY])?),
        ];
        for (_, client) in &clients {
            client.is_connected().await?;
        }
        let load = Load::start(scene);
        load.more(50).await?;
        subscriptions_are_shared(&stage.shards).await?;

        // A client that takes nothing is sent away, and the others do not notice.
        let stopped = &clients[5].1;
        stopped.source.set_stopped(true);
        let heavy: Vec<Record> = (0..HEAVY_EVENTS)
            .map(|number| record(HEAVY, number))
            .collect();
        scene.broker().produce(scene.topic(), &heavy)?;
        let sent_away = async || {
            Ok(stage.services[two]
                .metric("serving_slow_clients_total", "")
                .await?
                >= 1.0)
        };
        wait::until("the stopped client to be sent away", LIMIT, sent_away).await?;
        clients[4]
            .1
            .must_be_complete("the heavy one at 2", 0)
            .await?;
        stopped.source.set_stopped(false);
        stopped.must_be_complete("stopped at 2", 0).await?;
        ensure!(
            stopped.source.received().connects > 1,
            "the stopped client was not sent away"
        );

        // A shard that is away for a moment.
        stage.shards[0].kill(0)?;
        load.more(30).await?;
        stage.shards[0].restart(0).await?;
        load.more(30).await?;

        // From instance to instance, to one that reads the topic, and back: whoever is left takes all clients over.
        stage.services[one].kill()?;
        load.more(50).await?;
        start(&mut stage.services[one]).await?;
        stage.services[two].stop().await?;
        load.more(50).await?;
        start(&mut stage.services[topic]).await?;
        stage.services[one].kill()?;
        load.more(50).await?;
        start(&mut stage.services[two]).await?;
        stage.services[topic].kill()?;
        load.more(50).await?;
        let written = load.stop().await?;
        for (name, client) in &clients {
            client.must_be_complete(name, written).await?;
        }
        state_is_told(&urls[two], written).await?;
        forwarder.stop().await
    })
    .await;
}

/// An instance that has not read the topic tells the state when it is asked.
async fn state_is_told(service: &str, written: u64) -> Result<()> {
    let url = format!("{service}/asset_state?asset_uuid=A1&id=count");
    let client = reqwest::Client::builder().no_proxy().build()?;
    wait::until("the state", LIMIT, async || {
        let answer = client.get(&url).send().await?;
        let is_there = answer.status() == 200;
        let item: serde_json::Value = answer.json().await?;
        let last = (written - 1).to_string();
        ensure!(!is_there || item["value"] == last.as_str(), "{item}");
        Ok(is_there)
    })
    .await
}

/// One subscription for each asset that an instance's clients watch, however many they are, and one for each shard's news of the map.
async fn subscriptions_are_shared(shards: &[Shard]) -> Result<()> {
    for (service, assets) in [("nats-1", &[0, 1, 2][..]), ("nats-2", &[1, 3, HEAVY])] {
        let mut expected: Vec<String> = assets
            .iter()
            .map(|asset| asset_wildcard(ASSETS[*asset]))
            .chain(shards.iter().map(|_| MAP_NOTICES.to_owned()))
            .collect();
        expected.sort();
        let mut found = Vec::new();
        for shard in shards {
            found.extend(shard.subjects_of_client(service).await?);
        }
        found.sort();
        ensure!(found == expected, "{service} is subscribed to {found:?}");
    }
    Ok(())
}
