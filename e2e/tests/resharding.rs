//! Shards come, go and are replaced under load, while every asset is watched: nobody misses an event.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ofa_crds::ShardMap;
use ofa_crds::ring::DEFAULT_REPLICAS;
use ofa_crds::shard_map::Shard;
use ofa_e2e::crowd::{Crowd, Moves, quantile};
use ofa_e2e::kafka::Broker;
use ofa_e2e::load::{Pace, asset};
use ofa_e2e::operator::{Operator, is_settled, pool, shard};
use ofa_e2e::scene::{Scene, say, scenario_with_own_broker_within};
use ofa_e2e::serving::Serving;
use ofa_e2e::{process, wait};
use serde_json::Value;

/// Four changes, of which each gives clients half a minute to move.
const LIMIT: Duration = Duration::from_secs(600);

/// One change: nodes start, forwarders are replaced, clients move.
const CHANGE: Duration = Duration::from_secs(180);

/// A change does not wait for clients that a busy machine keeps from moving.
const MOVE: Duration = Duration::from_secs(60);

/// How often the operator is asked how far it is: a program is started for it, which costs the machine some milliseconds.
const ASKING: Duration = Duration::from_millis(250);

/// What is in Kafka has to arrive within this, on a machine that does much else.
const ARRIVAL: Duration = Duration::from_secs(60);

/// How often clients ask for the shard map without being told: what moves them here is that they are told.
const NEVER: Duration = Duration::MAX;

/// How many watch how much.
#[derive(Clone, Copy)]
struct Size {
    clients: u64,
    pace: Pace,
    /// Whether programs are killed in the midst. A forwarder that is interrupts its partitions until the group has noticed.
    kills: bool,
    /// How long the broker works before anything is measured: its Java code is compiled meanwhile, which takes a third of this machine.
    warm_up: Duration,
}

struct Play<'a> {
    scene: &'a Scene,
    operator: Operator,
    crowd: Crowd,
    size: Size,
}

/// Killed in the midst, or called off, a change comes to its end or back to its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn shards_come_and_go_under_load_and_nobody_misses_an_event() {
    let size = Size {
        clients: 10,
        pace: Pace {
            assets: 200,
            rate: 1_000,
        },
        kills: true,
        warm_up: Duration::ZERO,
    };
    scenario_with_own_broker_within("resharding", LIMIT, async |scene, broker| {
        play(scene, &broker, size).await
    })
    .await;
}

/// The figures: `cargo test --release -p ofa-e2e --test resharding -- --ignored --nocapture`, after a build of the programs
/// (`cargo build --release --bins`). `OFA_RATE` is another rate than 20,000 events a second.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of four minutes that wants the machine for itself"]
async fn a_thousand_clients_at_twenty_thousand_events_a_second() {
    let rate = std::env::var("OFA_RATE").map_or(20_000, |rate| rate.parse().expect("a number"));
    let size = Size {
        clients: 1_000,
        pace: Pace {
            assets: 1_000,
            rate,
        },
        kills: false,
        warm_up: Duration::from_secs(45),
    };
    scenario_with_own_broker_within("resharding-heavy", LIMIT, async |scene, broker| {
        play(scene, &broker, size).await
    })
    .await;
}

async fn play(scene: &Scene, broker: &Broker, size: Size) -> Result<()> {
    let mut files: Vec<(String, String)> = ["line-1", "line-2", "line-3"].map(shard).to_vec();
    files.push(pool(scene, broker));
    let operator = Operator::start(scene.folder(), &files)?;
    operator.wait_settled().await?;
    let (address, folder) = (broker.address(), scene.folder());
    let replay = Serving::replay_of_pool(&address, scene.topic(), "factory.pool", folder).await?;
    let router = Serving::router_of_pool(&address, "factory.pool", Some(&replay), folder).await?;
    let crowd = Crowd::start(&router.url(), (size.clients, size.pace.assets), NEVER).await?;
    let load = scene.load(size.pace)?;
    let mut play = Play {
        scene,
        operator,
        crowd,
        size,
    };
    play.nothing_happens().await;
    play.one_more_while_programs_are_killed().await?;
    play.one_less().await?;
    play.one_more_is_called_off().await?;
    play.one_in_the_place_of_another().await?;
    let written = load.stop()?;
    play.judge(written).await?;
    play.operator.stop().await
}

impl Play<'_> {
    /// What there is to compare with: an asset's clients wait for an event now and then, since the machine does much else.
    async fn nothing_happens(&self) {
        tokio::time::sleep(self.size.warm_up).await;
        self.crowd.watch().await;
        say(&format!(
            "no change: {}",
            waits(&self.crowd.take_moves(), self.size.pace)
        ));
    }

    async fn one_more_while_programs_are_killed(&mut self) -> Result<()> {
        let began = Instant::now();
        let (file, yaml) = shard("line-4");
        self.operator.write(&file, &yaml)?;
        let said = self.wait_for("Announce").await?;
        say(&format!("3 -> 4: {said}"));
        ensure!(said.contains("ranges") && said.contains('%'), "{said}");
        self.kill_a_forwarder()?;
        if self.size.kills {
            self.operator.kill()?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.operator.run()?;
        }
        let shards = ["line-1", "line-2", "line-3", "line-4"];
        self.settled(&shards).await?;
        self.must_have_moved("3 -> 4", &shards[..3], &shards, began)
            .await
    }

    async fn one_less(&mut self) -> Result<()> {
        let began = Instant::now();
        self.operator.remove("line-4.yaml")?;
        self.wait_for("Announce").await?;
        let still_there = self.shards()?.contains("line-4");
        ensure!(still_there, "a shard that has assets was taken away");
        self.kill_a_forwarder()?;
        let shards = ["line-1", "line-2", "line-3"];
        self.settled(&shards).await?;
        let before = ["line-1", "line-2", "line-3", "line-4"];
        self.must_have_moved("4 -> 3", &before, &shards, began)
            .await
    }

    async fn one_more_is_called_off(&mut self) -> Result<()> {
        let began = Instant::now();
        let (file, yaml) = shard("line-5");
        self.operator.write(&file, &yaml)?;
        self.wait_for("Announce").await?;
        wait::until("a client to move", MOVE, async || Ok(self.crowd.moves())).await?;
        self.operator.kill()?;
        self.operator.remove(&file)?;
        self.operator.run()?;
        self.settled(&["line-1", "line-2", "line-3"]).await?;
        let moves = self.crowd.take_moves();
        say(&format!(
            "3 -> 4, called off: {:.1} s, {} assets moved and came back",
            began.elapsed().as_secs_f64(),
            moves.assets.len()
        ));
        ensure!(!moves.assets.is_empty(), "nobody had to come back");
        Ok(())
    }

    /// Its assets move once, and not first to those that stay.
    async fn one_in_the_place_of_another(&mut self) -> Result<()> {
        let began = Instant::now();
        let (file, yaml) = shard("line-9");
        self.operator.write(&file, &yaml)?;
        self.operator.remove("line-2.yaml")?;
        let (before, after) = (
            ["line-1", "line-2", "line-3"],
            ["line-1", "line-3", "line-9"],
        );
        self.settled(&after).await?;
        self.must_have_moved("renamed", &before, &after, began)
            .await
    }

    /// Only the assets have moved whose owner is another on the ring, and all of them.
    async fn must_have_moved(
        &self,
        what: &str,
        before: &[&str],
        after: &[&str],
        began: Instant,
    ) -> Result<()> {
        let (old, new) = (ring(before)?, ring(after)?);
        let assets = (0..self.size.pace.assets).map(asset);
        let differs = |asset: &String| owner(&old, asset) != owner(&new, asset);
        let expected: BTreeSet<String> = assets.filter(differs).collect();
        let all_moved = wait::until("every client to move", MOVE, async || {
            Ok(self.crowd.have_moved(&expected))
        });
        // Who has not is named below.
        let _ = all_moved.await;
        let moves = self.crowd.take_moves();
        say(&format!(
            "{what}: {:.1} s, {} of {} assets moved, {}",
            began.elapsed().as_secs_f64(),
            moves.assets.len(),
            self.size.pace.assets,
            waits(&moves, self.size.pace),
        ));
        ensure!(
            moves.assets == expected,
            "{what}: the ring moves {expected:?}, clients were moved for {:?}",
            moves.assets
        );
        Ok(())
    }

    /// Waits until everything was received that Kafka holds, in order and once.
    async fn judge(&self, written: u64) -> Result<()> {
        let expected = self.scene.everything_committed().await?;
        let complete = wait::until("every event to arrive", ARRIVAL, async || {
            Ok(self.crowd.verdict(&expected).must_be_perfect().is_ok())
        });
        let arrived = complete.await;
        let verdict = self.crowd.verdict(&expected);
        say(&format!(
            "resharding: {verdict}, {} gaps announced",
            self.crowd.gaps()
        ));
        ensure!(verdict.after.events == written, "{written} were written");
        verdict.must_be_perfect()?;
        arrived
    }

    /// Waits until the pool says that a change is at this phase.
    async fn wait_for(&self, phase: &str) -> Result<String> {
        let what = format!("the change to be at {phase}");
        wait::for_some(&what, CHANGE, async || {
            let status = self.status().await?;
            let Some(pool) = object(&status, "ForwarderPool", "pool") else {
                return Ok(None);
            };
            let found = condition(pool, "Reconciling")
                .filter(|it| it["status"] == "True" && it["reason"] == "Resharding");
            let said = found.and_then(|it| it["message"].as_str());
            Ok(said
                .filter(|it| it.starts_with(phase))
                .map(ToOwned::to_owned))
        })
        .await
    }

    /// Waits until there are these shards and the pool acts by them.
    async fn settled(&self, shards: &[&str]) -> Result<()> {
        let wanted: BTreeSet<String> = shards.iter().map(|&name| name.to_owned()).collect();
        wait::until("the change to be done", CHANGE, async || {
            let status = self.status().await?;
            let Some(pool) = object(&status, "ForwarderPool", "pool") else {
                return Ok(false);
            };
            let done = condition(pool, "Reconciling").is_some_and(|it| it["status"] == "False");
            Ok(done
                && is_settled(pool)
                && pool["status"]["shards"] == wanted.len()
                && names(&status, "NatsShard") == wanted)
        })
        .await
        .with_context(|| format!("{:#}", self.operator.status().unwrap_or_default()["items"]))
    }

    async fn status(&self) -> Result<Value> {
        tokio::time::sleep(ASKING).await;
        self.operator.status()
    }

    fn shards(&self) -> Result<BTreeSet<String>> {
        Ok(names(&self.operator.status()?, "NatsShard"))
    }

    fn kill_a_forwarder(&self) -> Result<()> {
        if !self.size.kills {
            return Ok(());
        }
        let processes = self.operator.processes()?;
        let mut forwarders = processes
            .iter()
            .filter(|(name, _)| name.starts_with("pool"));
        let (_, pid) = forwarders.next().context("no forwarder runs")?;
        process::kill(pid.parse()?)
    }
}

fn waits(moves: &Moves, pace: Pace) -> String {
    let of = |times| {
        let ms = |per_mille| quantile(times, per_mille).as_secs_f64() * 1e3;
        let (p50, p99, most) = (ms(500), ms(990), ms(1000));
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms, most {most:.0} ms")
    };
    format!(
        "longest wait for an event of one that has one every {:.0} ms: {}; age of its oldest when it came: {}",
        1e3 * pace.assets as f64 / pace.rate as f64,
        of(&moves.waits),
        of(&moves.ages),
    )
}

fn object<'a>(status: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    let mut items = status["items"].as_array()?.iter();
    items.find(|item| item["kind"] == kind && item["metadata"]["name"] == name)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)
}

fn names(status: &Value, kind: &str) -> BTreeSet<String> {
    let items = status["items"].as_array().into_iter().flatten();
    let named = items.filter(|item| item["kind"] == kind);
    named
        .filter_map(|item| item["metadata"]["name"].as_str().map(ToOwned::to_owned))
        .collect()
}

fn ring(names: &[&str]) -> Result<ShardMap> {
    let shards = names.iter().map(|name| {
        Ok(Shard {
            name: name.parse()?,
            urls: vec!["nats://nobody:4222".to_owned()],
            advertised_urls: Vec::new(),
        })
    });
    let shards = shards.collect::<Result<_>>()?;
    Ok(ShardMap::from_ring(1, shards, DEFAULT_REPLICAS)?)
}

fn owner<'a>(map: &'a ShardMap, asset: &str) -> &'a str {
    map.shard_of(asset.as_bytes()).name.as_str()
}
