//! Many clients of the library, each watching assets of its own. What they receive is noted as it comes, not kept: a
//! thousand clients at twenty thousand events a second would not fit.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use ofa_client::audit::{Expected, Received};
use ofa_client::{Client, ClientOptions, Event, Item, SubscribeOptions, Subscription};
use tokio::task::JoinSet;

use crate::load::asset;
use crate::report::{Counts, Verdict};

/// Events that may wait for a client that does not get the CPU.
const QUEUE: usize = 1 << 16;

/// Subscriptions that are opened at once.
const OPENING: usize = 64;

/// For so long after an asset has moved its events are watched for an interruption: longer than a client listens to
/// the former shard.
const WATCHED: Duration = Duration::from_secs(5);

/// Clients at work.
#[derive(Debug)]
pub struct Crowd {
    taken: Arc<Mutex<Taken>>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Taken {
    received: Received,
    counts: Counts,
    messages: u64,
    gaps: u64,
    moves: Moves,
    /// Counts calls of [`Crowd::watch`].
    watches: u64,
}

/// Assets that changed their shard, as their clients saw it.
#[derive(Debug, Default)]
pub struct Moves {
    /// Which.
    pub assets: BTreeSet<String>,
    /// The longest wait for an event of each of them while it moved, or was watched, shortest first.
    pub waits: Vec<Duration>,
    /// The age of the oldest event that came of each of them meanwhile, least first: what an interruption is where events are rarer
    /// than it is long.
    pub ages: Vec<Duration>,
}

/// What a share of `per_mille` thousandths of sorted times stays below; nothing without any.
#[must_use]
pub fn quantile(times: &[Duration], per_mille: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    let index = (times.len() * per_mille).div_ceil(1000);
    let time = times.get(index.saturating_sub(1).min(last));
    time.copied().unwrap_or_default()
}

impl Crowd {
    /// Lets `clients` clients watch `assets` assets of the load, as many each; so often they ask for the shard map without being told.
    ///
    /// # Errors
    /// When one cannot subscribe.
    pub async fn start(
        router: &str,
        (clients, assets): (u64, u64),
        map_interval: Duration,
    ) -> Result<Self> {
        let options = ClientOptions {
            map_interval,
            ..ClientOptions::default()
        };
        let all: Vec<Client> = (0..clients)
            .map(|_| Client::with_options(router, options.clone()))
            .collect::<Result<_, _>>()?;
        let opening = stream::iter(0..assets).map(|number| {
            let client = &all[usize::try_from(number % clients).unwrap_or(0)];
            open(client, number)
        });
        let opened: Vec<(String, Subscription)> =
            opening.buffer_unordered(OPENING).try_collect().await?;
        let taken = Arc::new(Mutex::new(Taken::default()));
        let mut tasks = JoinSet::new();
        for (name, subscription) in opened {
            tasks.spawn(follow(name, subscription, taken.clone()));
        }
        Ok(Self {
            taken,
            _tasks: tasks,
        })
    }

    /// Compares what is expected with what has come so far.
    #[must_use]
    pub fn verdict(&self, expected: &Expected) -> Verdict {
        let taken = lock(&self.taken);
        let after = expected.compare(&taken.received);
        Verdict {
            messages: taken.messages,
            duplicates_before: after.duplicates,
            miscounted: taken.counts.wrong(),
            after,
        }
    }

    /// Watches all assets as if they moved now: what their clients wait for when nothing happens.
    pub async fn watch(&self) {
        lock(&self.taken).watches += 1;
        tokio::time::sleep(WATCHED * 2).await;
    }

    /// Whether any client has moved since moves were last taken.
    #[must_use]
    pub fn moves(&self) -> bool {
        !lock(&self.taken).moves.assets.is_empty()
    }

    /// Whether the clients of all these assets have moved since moves were last taken.
    #[must_use]
    pub fn have_moved(&self, assets: &BTreeSet<String>) -> bool {
        lock(&self.taken).moves.assets.is_superset(assets)
    }

    /// The moves since they were last taken.
    #[must_use]
    pub fn take_moves(&self) -> Moves {
        let mut moves = std::mem::take(&mut lock(&self.taken).moves);
        moves.waits.sort_unstable();
        moves.ages.sort_unstable();
        moves
    }

    /// Gaps that clients were told of.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        lock(&self.taken).gaps
    }
}

async fn open(client: &Client, number: u64) -> Result<(String, Subscription)> {
    let name = asset(number);
    let options = SubscribeOptions {
        queue: QUEUE,
        stale: true,
        ..SubscribeOptions::default()
    };
    let uuid = name.parse().context("an asset's name")?;
    let subscription = client.subscribe_with(&uuid, options).await?;
    Ok((name, subscription))
}

async fn follow(name: String, mut subscription: Subscription, taken: Arc<Mutex<Taken>>) {
    let (mut wait, mut watches) = (Wait::default(), 0);
    while let Some(item) = subscription.next_item().await {
        let mut taken = lock(&taken);
        taken.received.note(&name, &item);
        taken.counts.note(&item);
        match &item {
            Item::Event(event) => {
                taken.messages += 1;
                if std::mem::replace(&mut watches, taken.watches) < taken.watches {
                    wait.moved(Instant::now());
                }
                if let Some((longest, oldest)) = wait.event(Instant::now(), || age(event)) {
                    taken.moves.waits.push(longest);
                    taken.moves.ages.push(oldest);
                }
            }
            Item::Moved { .. } => {
                taken.moves.assets.insert(name.clone());
                wait.moved(Instant::now());
            }
            Item::Gap(_) => taken.gaps += 1,
            Item::Stale(_)
            | Item::Disconnected { .. }
            | Item::Reconnected { .. }
            | Item::Complete { .. } => {}
        }
    }
}

/// How long ago an event was written.
fn age(event: &Event) -> Duration {
    let parsed = event.parsed().ok();
    let written = parsed.and_then(|it| it.timestamp()?.parse::<Timestamp>().ok());
    let age = written.map(|written| Timestamp::now().duration_since(written));
    age.and_then(|age| Duration::try_from(age).ok())
        .unwrap_or_default()
}

/// How long an asset's events stay away while it moves.
#[derive(Debug, Default)]
struct Wait {
    last: Option<Instant>,
    until: Option<Instant>,
    longest: Duration,
    oldest: Duration,
}

impl Wait {
    fn moved(&mut self, now: Instant) {
        self.until = Some(now + WATCHED);
        self.longest = Duration::ZERO;
        self.oldest = Duration::ZERO;
    }

    /// The longest wait and the greatest age, with the first event after the time that is watched.
    fn event(
        &mut self,
        now: Instant,
        age: impl FnOnce() -> Duration,
    ) -> Option<(Duration, Duration)> {
        let waited = self.last.replace(now).map(|last| now - last);
        let until = self.until?;
        self.longest = self.longest.max(waited.unwrap_or_default());
        self.oldest = self.oldest.max(age());
        if now < until {
            return None;
        }
        self.until = None;
        Some((self.longest, self.oldest))
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_and_the_greatest_age_of_a_move_are_told_when_it_is_over() {
        let young = Duration::from_millis(3);
        let old = Duration::from_millis(140);
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut wait = Wait::default();
        assert_eq!(wait.event(at(0), || old * 2), None);
        assert_eq!(wait.event(at(900), || old * 2), None, "nothing moves");
        wait.moved(at(1_000));
        assert_eq!(wait.event(at(1_150), || old), None);
        assert_eq!(wait.event(at(1_200), || young), None);
        let over = 1_000 + 5_000;
        assert_eq!(wait.event(at(over - 100), || young), None);
        let longest = Duration::from_millis(over - 100 - 1_200);
        assert_eq!(wait.event(at(over), || young), Some((longest, old)));
        assert_eq!(wait.event(at(over + 9_000), || old), None);
    }

    #[test]
    fn quantiles_are_of_the_assets_that_moved() {
        assert_eq!(quantile(&[], 990), Duration::ZERO);
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 500), Duration::from_millis(100));
        assert_eq!(quantile(&times, 990), Duration::from_millis(198));
        assert_eq!(quantile(&times, 1000), Duration::from_millis(200));
    }
}
