//! The live view's loop: once a second it gathers what there is to show.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::future::join_all;
use ofa_crds::AssetUuid;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::counter::{SharedTally, latency_of};
use super::operator::{Instance, Operator};
use super::scrape::{self, Forwarder};
use super::view::{self, Frame};
use ofa_client::{Client, Item, Subscription};

/// Events of the asset that are shown.
const ASSET_EVENTS: usize = 6;

/// How often the view is drawn.
const EVERY: Duration = Duration::from_secs(1);

/// Gathers and draws.
pub(crate) struct Watch<'a> {
    operator: &'a mut Operator,
    tally: &'a SharedTally,
    http: reqwest::Client,
    asset: String,
    subscription: Subscription,
    asset_events: VecDeque<String>,
    hints: Vec<String>,
    before: Before,
}

/// Counts of the last frame, which rates are reckoned from.
#[derive(Default)]
struct Before {
    events: u64,
    shards: BTreeMap<String, u64>,
    confirmed: BTreeMap<String, f64>,
}

impl<'a> Watch<'a> {
    pub(crate) async fn new(
        client: &Client,
        operator: &'a mut Operator,
        tally: &'a SharedTally,
        asset: String,
        hints: Vec<String>,
    ) -> anyhow::Result<Self> {
        let subscription = client.subscribe(&asset.parse::<AssetUuid>()?).await?;
        let before = {
            let tally = tally.lock();
            Before {
                events: tally.received.events(),
                shards: tally.by_shard.clone(),
                confirmed: BTreeMap::new(),
            }
        };
        Ok(Self {
            operator,
            tally,
            http: reqwest::Client::builder().no_proxy().build()?,
            asset,
            subscription,
            asset_events: VecDeque::new(),
            hints,
            before,
        })
    }

    /// Draws until the time is over; without end when there is none.
    pub(crate) async fn run(&mut self, length: Option<Duration>) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        let mut drawn = started;
        while length.is_none_or(|length| started.elapsed() < length) {
            tokio::select! {
                _ = ticks.tick() => {
                    let since_last = std::mem::replace(&mut drawn, Instant::now()).elapsed();
                    let frame = self.frame(started, since_last).await?;
                    view::show(&frame)?;
                }
                Some(item) = self.subscription.next_item() => self.take(&item),
            }
        }
        Ok(())
    }

    fn take(&mut self, item: &Item) {
        let text = match item {
            Item::Event(event) => {
                let value = match event.parsed().unwrap_or_default().value {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                let took = latency_of(event).unwrap_or_default().as_secs_f64() * 1000.0;
                format!("{} = {value}   ({took:.1} ms)", event.id)
            }
            Item::Gap(gap) => format!("! gap: {gap}"),
            Item::Moved { from, to, .. } => format!("! moved from {from} to {to}"),
            Item::Disconnected { shard } => format!("! connection to {shard} lost"),
            Item::Reconnected { node, .. } => format!("! connected to {node}"),
            Item::Stale(_) | Item::Complete { .. } => return,
        };
        self.asset_events.push_back(text);
        if self.asset_events.len() > ASSET_EVENTS {
            self.asset_events.pop_front();
        }
    }

    async fn frame(&mut self, started: Instant, since_last: Duration) -> anyhow::Result<Frame> {
        let status = self.operator.status().await?;
        let forwarders: Vec<Instance> = status.forwarders().cloned().collect();
        let figures = join_all(
            forwarders
                .iter()
                .map(|it| scrape::forwarder(&self.http, &it.host)),
        );
        let figures = figures.await;
        let mut frame = Frame {
            elapsed: started.elapsed(),
            asset: self.asset.clone(),
            asset_events: self.asset_events.clone(),
            hints: self.hints.clone(),
            trouble: status.trouble(),
            ..Frame::default()
        };
        let seconds = since_last.as_secs_f64().max(0.001);
        self.add_counts(&mut frame, seconds);
        for (instance, figures) in forwarders.into_iter().zip(figures) {
            let figures = figures.map(|it| self.with_rate(&instance.name, it, seconds));
            frame.forwarders.insert(instance.name, figures);
        }
        Ok(frame)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn add_counts(&mut self, frame: &mut Frame, seconds: f64) {
        let mut tally = self.tally.lock();
        frame.events = tally.received.events();
        frame.rate = (frame.events - self.before.events) as f64 / seconds;
        frame.p50_ms = tally.recent.quantile_ms(500);
        frame.p99_ms = tally.recent.quantile_ms(990);
        tally.recent.clear();
        frame.gaps = tally.gaps;
        frame.reconnects = tally.reconnects;
        for (shard, &count) in &tally.by_shard {
            let before = self.before.shards.get(shard).copied().unwrap_or(0);
            let rate = (count - before) as f64 / seconds;
            frame.shards.insert(shard.clone(), rate);
        }
        self.before.shards.clone_from(&tally.by_shard);
        self.before.events = frame.events;
    }

    /// A forwarder that was restarted counts from zero again.
    fn with_rate(&mut self, name: &str, figures: Forwarder, seconds: f64) -> (Forwarder, f64) {
        let now: f64 = figures.confirmed.values().sum();
        let before = self.before.confirmed.insert(name.to_owned(), now);
        let rate = (now - before.unwrap_or(now)).max(0.0) / seconds;
        (figures, rate)
    }
}
