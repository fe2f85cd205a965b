//! Moves of which a client hears only when it comes back.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ofa_e2e::engine::register;
use ofa_e2e::forwarder::{Forwarder, Settings};
use ofa_e2e::kafka::Broker;
use ofa_e2e::nats::Shard;
use ofa_e2e::process::Process;
use ofa_e2e::serving::Serving;
use ofa_e2e::sse::{EventSource, Received};
use ofa_e2e::{engine, wait};

use crate::scene::{self, GROUPS, LIMIT, MOVES, QUIET, SOURCE, event, numbers, serving, topic};

/// Events in each group, and of assets that stay behind it.
const EVENTS: u64 = 20;
const OTHERS: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asset_has_had_in_a_group_between_is_not_missed() -> Result<()> {
    is_followed_through(["Paint", QUIET]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asset_has_had_elsewhere_before_it_came_back_is_not_missed() -> Result<()> {
    is_followed_through(["Paint", "Weld"]).await
}

/// The engine is killed after each move.
async fn is_followed_through(groups: [&str; 2]) -> Result<()> {
    let mut scene = Scene::start(Feed::Topic).await?;
    let first = scene.watch(None).await?;
    for group in groups {
        scene.go_to(group).await?;
        scene.start_engine_again().await?;
    }
    let second = scene.watch(Some(first.id.clone())).await?;
    scene.is_complete(&[&first, &second])
}

/// Others' events move a client's id on, while its own asset sends in another group already.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_others_events_hides_nothing() -> Result<()> {
    let mut scene = Scene::in_use(Feed::Topic).await?;
    let first = scene.watch(None).await?;
    scene.go_to("Paint").await?;
    scene.others_send("Weld").await?;
    let ends = scene.broker.ends(&topic("Weld"))?;
    let places = ends.iter().filter(|(_, end)| **end > 0);
    let places: Vec<String> = places
        .map(|(partition, end)| format!("{partition}/{}", end - 1))
        .collect();
    let id = format!("{}/{}", topic("Weld"), places.join(","));
    let second = scene.watch(Some(id)).await?;
    scene.is_complete(&[&first, &second])
}

/// In some groups it has been twice, in the one that it began in too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_however_often_an_asset_has_moved() -> Result<()> {
    let mut scene = Scene::in_use(Feed::Topic).await?;
    let first = scene.watch(None).await?;
    for group in ["Paint", QUIET, "Paint", "Weld", "Paint", QUIET] {
        scene.go_to(group).await?;
    }
    let second = scene.watch(Some(first.id.clone())).await?;
    scene.go_to("Weld").await?;
    scene.go_to(QUIET).await?;
    let third = scene.watch(Some(second.id.clone())).await?;
    scene.is_complete(&[&first, &second, &third])
}

/// One that the router does not send to the asset's group is sent away by the service when the asset comes back, and misses
/// nothing either; whether its service reads the topic or takes events from NATS.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stays_at_a_service_is_given_what_was_elsewhere() -> Result<()> {
    let mut scene = Scene::start(Feed::Topic).await?;
    scene.stays_at_its_service().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asset_has_had_elsewhere_is_not_missed_over_nats() -> Result<()> {
    let mut scene = Scene::start(Feed::Nats).await?;
    let first = scene.watch(None).await?;
    scene.go_to("Paint").await?;
    scene.go_to("Weld").await?;
    let second = scene.watch(Some(first.id.clone())).await?;
    scene.is_complete(&[&first, &second])?;
    scene.stays_at_its_service().await
}

/// Where the first group's service has its events from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    Topic,
    Nats,
}

/// The first group's events on NATS.
struct Nats {
    _shard: Shard,
    _forwarder: Forwarder,
    _replay: Serving,
    router: Serving,
}

impl Nats {
    async fn start(broker: &Broker, folder: &Path) -> Result<Self> {
        let shard = Shard::start("C1", 1, folder).await?;
        let shards = Settings::urls_of(std::slice::from_ref(&shard));
        let (broker, topic) = (broker.address(), topic(GROUPS[0]));
        let replay = Serving::replay_verbatim(&broker, &topic, &shards, folder).await?;
        let router = Serving::router(&shards, Some(&replay), folder).await?;
        let settings = Settings {
            member: "f1".to_owned(),
            broker,
            topic,
            group: "on-nats".to_owned(),
            shards,
            variables: vec![("PAYLOAD".to_owned(), "Verbatim".to_owned())],
        };
        let mut forwarder = Forwarder::start(settings, folder)?;
        forwarder.wait_ready().await?;
        Ok(Self {
            _shard: shard,
            _forwarder: forwarder,
            _replay: replay,
            router,
        })
    }
}

struct Scene {
    _nats: Option<Nats>,
    folder: tempfile::TempDir,
    broker: Broker,
    engine: Process,
    router: Serving,
    services: Vec<Serving>,
    /// Events of the one that moves.
    sent: u64,
}

impl Scene {
    async fn start(feed: Feed) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let broker = Broker::start(folder.path()).await?;
        scene::create_topics(&broker).await?;
        let engine = engine_of(&broker, folder.path()).await?;
        scene::topics_to_be_there(&broker).await?;
        let nats = match feed {
            Feed::Topic => None,
            Feed::Nats => Some(Nats::start(&broker, folder.path()).await?),
        };
        let url = nats.as_ref().map(|nats| nats.router.url());
        let of_first: Vec<(&str, &str)> = url
            .iter()
            .map(|url| ("NATS_ROUTER_URL", url.as_str()))
            .collect();
        let (router, services) = serving(&broker, &of_first, folder.path()).await?;
        let mut scene = Self {
            folder,
            broker,
            engine,
            router,
            services,
            _nats: nats,
            sent: 0,
        };
        scene.send_in(GROUPS[0], 1).await?;
        Ok(scene)
    }

    /// The same, with groups that have sent before.
    async fn in_use(feed: Feed) -> Result<Self> {
        let scene = Self::start(feed).await?;
        for group in GROUPS {
            scene.others_send(group).await?;
        }
        Ok(scene)
    }

    /// What a client is given, up to the last event.
    async fn watch(&mut self, id: Option<String>) -> Result<Received> {
        let is_first = id.is_none();
        let client = EventSource::resume(&[self.router.url()], &[MOVES], id.unwrap_or_default())?;
        if is_first {
            wait::until("the client to listen", LIMIT, async || {
                Ok(!client.received().id.is_empty())
            })
            .await?;
            self.send_in(GROUPS[0], EVENTS).await?;
        }
        self.all_of(&client).await
    }

    /// What a client has received when it has the last event.
    async fn all_of(&self, client: &EventSource) -> Result<Received> {
        let last = self.sent - 1;
        let arrived = wait::until("the last event", LIMIT, async || {
            Ok(numbers(&client.received())?.last() == Some(&last))
        });
        let arrived = arrived.await;
        let received = client.received();
        arrived.with_context(|| format!("of {} it has {received:?}", self.sent))?;
        Ok(received)
    }

    async fn stays_at_its_service(&mut self) -> Result<()> {
        let client = EventSource::start(&[self.services[0].url()], &[MOVES])?;
        wait::until("the client to listen", LIMIT, async || {
            Ok(!client.received().id.is_empty())
        })
        .await?;
        let first = self.sent;
        self.send(EVENTS)?;
        self.go_to("Paint").await?;
        self.go_to(GROUPS[0]).await?;
        let received = self.all_of(&client).await?;
        ensure!(numbers(&received)?[0] <= first, "it has not listened");
        self.is_complete(&[&received])
    }

    /// The asset moves and sends.
    async fn go_to(&mut self, group: &str) -> Result<()> {
        register(&self.broker, MOVES, group)?;
        self.send_in(group, EVENTS).await?;
        self.others_send(group).await
    }

    /// Sends until the group's topic has some, since the engine hears of a move when it does; and then that many more.
    async fn send_in(&mut self, group: &str, events: u64) -> Result<()> {
        let before = self.count(group)?;
        wait::until(
            "the group to have the asset's first event",
            LIMIT,
            async || {
                self.send(1)?;
                Ok(self.count(group)? > before)
            },
        )
        .await?;
        self.send(events)
    }

    fn send(&mut self, events: u64) -> Result<()> {
        let numbers = self.sent..self.sent + events;
        let records: Vec<_> = numbers.map(|number| event(MOVES, number, 0)).collect();
        self.broker.produce(SOURCE, &records)?;
        self.sent += events;
        Ok(())
    }

    /// An asset that stays sends, so that the topics' numbers differ.
    async fn others_send(&self, group: &str) -> Result<()> {
        let before = self.count(group)?;
        let asset = format!("stays-{group}");
        let records: Vec<_> = (0..OTHERS).map(|number| event(&asset, number, 0)).collect();
        self.broker.produce(SOURCE, &records)?;
        wait::until("the group to have the others' events", LIMIT, async || {
            Ok(self.count(group)? >= before + OTHERS)
        })
        .await
    }

    fn count(&self, group: &str) -> Result<u64> {
        Ok(self.broker.ends(&topic(group))?.values().sum())
    }

    /// What the engine knows of former groups outlives it.
    async fn start_engine_again(&mut self) -> Result<()> {
        self.engine.kill()?;
        self.engine = engine_of(&self.broker, self.folder.path()).await?;
        Ok(())
    }

    fn is_complete(&self, parts: &[&Received]) -> Result<()> {
        let found: Vec<Vec<u64>> = parts
            .iter()
            .map(|part| numbers(part))
            .collect::<Result<_>>()?;
        let found = found.concat();
        let expected: Vec<u64> = (found[0]..self.sent).collect();
        for part in parts {
            ensure!(part.gaps.is_empty(), "gaps: {:?}", part.gaps);
        }
        ensure!(found == expected, "{found:?} of {expected:?}");
        Ok(())
    }
}

async fn engine_of(broker: &Broker, folder: &Path) -> Result<Process> {
    engine::start(broker, "engine", &[], folder).await
}
