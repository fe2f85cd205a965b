//! The system that is disturbed: a broker, shards of two nodes, two forwarders, a router, a replay service, and clients
//! that watch every asset.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::time::sleep;

use super::resharding::{POOL, Resharding};
use super::schedule::{FORWARDERS, Fault, NODES, SHARDS};
use crate::crowd::Crowd;
use crate::forwarder::Forwarder;
use crate::kafka::Broker;
use crate::load::{Load, Pace};
use crate::nats::Shard;
use crate::scene::{Scene, say};
use crate::serving::Serving;

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

/// Clients that share the assets.
const CLIENTS: u64 = 5;

/// How often they ask whether there is another map: a change has no half a minute for each step here.
const MAP_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Stage<'a> {
    scene: &'a Scene,
    broker: Broker,
    shards: Vec<Shard>,
    forwarders: Vec<Option<Forwarder>>,
    resharding: Resharding,
    /// Whether the last shard is, or is to be, in the map.
    with_last: bool,
    crowd: Crowd,
    replay: Serving,
    router: Serving,
    generations: usize,
    /// Events in Kafka.
    written: u64,
}

impl<'a> Stage<'a> {
    pub(super) async fn set(scene: &'a Scene, broker: Broker) -> Result<Self> {
        let shards = scene.shards(SHARDS, NODES).await?;
        let resharding = Resharding::start(&broker.settings(), &shards[..SHARDS - 1]).await?;
        let (address, folder) = (broker.address(), scene.folder());
        let replay = Serving::replay_of_pool(&address, scene.topic(), POOL, folder).await?;
        let router = Serving::router_of_pool(&address, POOL, Some(&replay), folder).await?;
        let crowd = Crowd::start(&router.url(), (CLIENTS, PACE.assets), MAP_INTERVAL).await?;
        let mut stage = Self {
            scene,
            broker,
            shards,
            forwarders: (0..FORWARDERS).map(|_| None).collect(),
            resharding,
            with_last: false,
            crowd,
            replay,
            router,
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
            Fault::KillForwarder(index) => {
                let (member, forwarder) = self.take_forwarder(index)?;
                forwarder.kill()?;
                self.resharding.ended(&member);
                Ok(())
            }
            Fault::StopForwarder(index) => {
                let (member, forwarder) = self.take_forwarder(index)?;
                forwarder.stop().await?;
                self.resharding.ended(&member);
                Ok(())
            }
            Fault::FreezeForwarder(index) => self.signal_forwarder(index, Signal::STOP),
            Fault::KillNode(shard, node) => self.shards[shard].kill(node),
            Fault::FreezeNode(shard, node) => self.shards[shard].freeze(node),
            Fault::KillRouter => self.router.kill(),
            Fault::KillReplay => self.replay.kill(),
            Fault::KillBroker => self.broker.kill(),
            Fault::Reshard => {
                self.with_last = !self.with_last;
                let count = SHARDS - usize::from(!self.with_last);
                self.resharding.want(&self.shards[..count])
            }
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
            Fault::KillRouter => self.router.run(),
            Fault::KillReplay => self.replay.run(),
            Fault::KillBroker => self.broker.run().await,
            Fault::Reshard => Ok(()),
        }
    }

    /// Compares all that Kafka holds with what the subscribers have received.
    pub(super) async fn judge(&mut self, load: Load) -> Result<()> {
        sleep(EPILOGUE).await;
        self.written = load.stop()?;
        let expected = self.scene.everything_committed().await?;
        let mut verdict = self.crowd.verdict(&expected);
        let mut waited = Duration::ZERO;
        while verdict.must_be_perfect().is_err() && waited < ARRIVAL {
            sleep(LOOK).await;
            waited += LOOK;
            verdict = self.crowd.verdict(&expected);
        }
        say(&format!("chaos: {verdict}"));
        verdict.must_be_perfect()
    }

    /// Starts a forwarder without waiting: what it needs may be away.
    fn start_forwarder(&mut self, index: usize) -> Result<()> {
        self.generations += 1;
        let member = format!("f{index}-{}", self.generations);
        let mut settings = self.scene.settings(&member, &[]);
        let pool = ("FORWARDER_POOL".to_owned(), POOL.to_owned());
        settings.variables.push(pool);
        self.resharding.started(&member);
        let forwarder = self.scene.start(settings)?;
        self.forwarders[index] = Some(forwarder);
        Ok(())
    }

    /// A forwarder and its name. Until it has ended it may publish, and so a change waits for it.
    fn take_forwarder(&mut self, index: usize) -> Result<(String, Forwarder)> {
        let forwarder = self.forwarders[index].take();
        let forwarder = forwarder.context("no such forwarder")?;
        Ok((forwarder.member().to_owned(), forwarder))
    }

    fn signal_forwarder(&mut self, index: usize, signal: Signal) -> Result<()> {
        let forwarder = self.forwarders[index].as_mut();
        forwarder
            .context("no such forwarder")?
            .process()
            .signal(signal)
    }
}
