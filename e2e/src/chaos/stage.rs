//! The system that is disturbed: a broker, two shards of two nodes, two forwarders, a router, a replay service and
//! subscribers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ofa_client::audit::Expected;
use rustix::process::Signal;
use tokio::time::sleep;

use super::schedule::{FORWARDERS, Fault, NODES, SHARDS};
use crate::forwarder::{Forwarder, Settings};
use crate::kafka::Broker;
use crate::load::{Load, Pace};
use crate::nats::Shard;
use crate::replay::Replay;
use crate::report::{self, Verdict};
use crate::router::Router;
use crate::scene::{Scene, say};
use crate::watch::Follower;

/// Enough that every fault hits events, little enough that twenty schedules are compared in no time.
const PACE: Pace = Pace {
    assets: 100,
    rate: 1_500,
};

/// Every asset sends for so long after the last fault that its next event tells what was missed before.
const EPILOGUE: Duration = Duration::from_millis(1_500);

/// Subscribers that have not got everything by then will not.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Stage<'a> {
    scene: &'a Scene,
    broker: Broker,
    shards: Vec<Shard>,
    forwarders: Vec<Option<Forwarder>>,
    followers: Vec<Follower>,
    _replay: Replay,
    _router: Router,
    generations: usize,
    /// Events in Kafka.
    written: u64,
}

impl<'a> Stage<'a> {
    pub(super) async fn set(scene: &'a Scene, broker: Broker) -> Result<Self> {
        let shards = scene.shards(SHARDS, NODES).await?;
        let urls = Settings::urls_of(&shards);
        let replay = Replay::start(&broker.address(), scene.topic(), &urls, scene.folder()).await?;
        let router = Router::with_replay(&urls, &replay, scene.folder()).await?;
        let mut followers = Vec::new();
        for shard in &shards {
            let name = format!("follower-{}", shard.name());
            followers.push(Follower::start(router.url(), shard.name(), &name).await?);
        }
        let mut stage = Self {
            scene,
            broker,
            shards,
            forwarders: (0..FORWARDERS).map(|_| None).collect(),
            followers,
            _replay: replay,
            _router: router,
            generations: 0,
            written: 0,
        };
        for index in 0..FORWARDERS {
            stage.start_forwarder(index)?;
        }
        Ok(stage)
    }

    /// Begins to write, or goes on.
    pub(super) fn load(&self) -> Result<Load> {
        Load::go_on(&self.broker, self.scene.topic(), PACE, self.written)
    }

    pub(super) async fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillForwarder(index) => self.take_forwarder(index)?.kill(),
            Fault::StopForwarder(index) => self.take_forwarder(index)?.stop().await,
            Fault::FreezeForwarder(index) => self.signal_forwarder(index, Signal::STOP),
            Fault::KillNode(shard, node) => self.shards[shard].kill(node),
            Fault::FreezeNode(shard, node) => self.shards[shard].freeze(node),
            Fault::KillBroker => self.broker.kill(),
        }
    }

    pub(super) async fn heal(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillForwarder(index) | Fault::StopForwarder(index) => {
                self.start_forwarder(index)
            }
            Fault::FreezeForwarder(index) => self.signal_forwarder(index, Signal::CONT),
            Fault::KillNode(shard, node) => self.shards[shard].restart(node).await,
            Fault::FreezeNode(shard, node) => self.shards[shard].thaw(node),
            Fault::KillBroker => self.broker.run().await,
        }
    }

    /// Compares all that Kafka holds with what the subscribers have received.
    pub(super) async fn judge(&mut self, load: Load) -> Result<()> {
        sleep(EPILOGUE).await;
        self.written = load.stop()?;
        let expected = self.scene.everything_committed().await?;
        let mut verdict = self.verdict(&expected);
        let mut waited = Duration::ZERO;
        while verdict.must_be_perfect().is_err() && waited < ARRIVAL {
            sleep(LOOK).await;
            waited += LOOK;
            verdict = self.verdict(&expected);
        }
        say(&format!("chaos: {verdict}"));
        verdict.must_be_perfect()
    }

    fn verdict(&self, expected: &Expected) -> Verdict {
        let items = |follower: &Follower| (follower.shard().to_owned(), follower.items());
        let lists: Vec<_> = self.followers.iter().map(items).collect();
        report::of_items(expected, &lists)
    }

    /// Starts a forwarder without waiting: what it needs may be away.
    fn start_forwarder(&mut self, index: usize) -> Result<()> {
        self.generations += 1;
        let member = format!("f{index}-{}", self.generations);
        let settings = self.scene.settings(&member, &self.shards);
        let forwarder = self.scene.start(settings)?;
        self.forwarders[index] = Some(forwarder);
        Ok(())
    }

    fn take_forwarder(&mut self, index: usize) -> Result<Forwarder> {
        self.forwarders[index].take().context("no such forwarder")
    }

    fn signal_forwarder(&mut self, index: usize, signal: Signal) -> Result<()> {
        let forwarder = self.forwarders[index].as_mut();
        forwarder
            .context("no such forwarder")?
            .process()
            .signal(signal)
    }
}
