//! Notices changes of the shard map: forwarders tell of them on NATS, and the router is asked from time to time, since what NATS
//! brings may be lost.

use std::ops::RangeInclusive;
use std::sync::Weak;
use std::time::Duration;

use ofa_crds::AssetUuid;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::client::Shared;
use crate::map_state::{MapState, News, Wanted};
use crate::router::{Route, RouterError, Shards};

/// Each pause before the map is asked for again is as long as wanted or a quarter more or less, so that clients that began together do
/// not ask together.
const VARIATION: RangeInclusive<f64> = 0.75..=1.25;

/// How long it takes at most until a client that is told of a change asks: all are told in the same instant, and a move costs a
/// connection, and for a moment events that come twice. A third of the time that clients have to move, so that another attempt has its
/// time too.
const NOTICE_SPREAD: Duration = Duration::from_secs(10);

/// How often every asset's route is asked for again from a router that does not tell about its map.
const ROUTE_POLL: Duration = Duration::from_secs(10);

/// After a change, each subscription asks within this time: not all in the same instant.
const SPREAD_MS: u64 = 500;

/// Rest before a route is asked for again after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// An interval longer than this means never, and a sum of times must not overflow.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Rest before the map is: a router that cannot be reached for a moment must not cost a client its time to move.
const MAP_RETRY: Duration = Duration::from_secs(2);

/// Keeps the map's newest state for as long as the client is held.
pub(crate) async fn follow_map(
    client: Weak<Shared>,
    mut news: mpsc::Receiver<News>,
    changes: watch::Sender<MapState>,
) {
    let (mut said, mut wanted) = (false, Wanted::default());
    loop {
        let Some(shared) = client.upgrade() else {
            return;
        };
        let answer = shared.router.shards().await;
        if let Ok(Some(shards)) = &answer {
            shared.replayer.set_url(shards.replay_url.as_deref());
        }
        let interval = shared.options.map_interval.min(LONGEST_INTERVAL);
        drop(shared);
        if let Err(error) = &answer
            && !said
        {
            warn!(%error, "changes of the shard map are not seen for the time being");
        }
        said = answer.is_err();
        let pause = take_in(answer, &changes, &mut wanted, interval);
        let asks_at = Instant::now() + pause.mul_f64(rand::rng().random_range(VARIATION));
        tokio::select! {
            () = sleep_until(asks_at) => {}
            () = next_moves(&mut news, &changes, &mut wanted) => {
                let spread = NOTICE_SPREAD.min(interval).mul_f64(rand::random());
                sleep_until(asks_at.min(Instant::now() + spread)).await;
                // The others have told the same meanwhile.
                while let Ok(news) = news.try_recv() {
                    moves(&news, &changes, &mut wanted);
                }
            }
            () = changes.closed() => return,
        }
    }
}

/// Takes in an answer; how long to wait before the next question.
fn take_in(
    answer: Result<Option<Shards>, RouterError>,
    changes: &watch::Sender<MapState>,
    wanted: &mut Wanted,
    interval: Duration,
) -> Duration {
    match answer {
        Ok(Some(shards)) => {
            let mut is_met = true;
            changes.send_if_modified(|state| {
                let taken = state.take_in(shards, wanted);
                is_met = taken.is_met;
                taken.changes
            });
            if is_met {
                interval
            } else {
                MAP_RETRY.min(interval)
            }
        }
        Ok(None) => {
            changes.send_modify(MapState::is_untold);
            ROUTE_POLL
        }
        Err(_) => MAP_RETRY.min(interval),
    }
}

/// Takes note of news until the router is to be asked because of them. Cancelling loses nothing.
async fn next_moves(
    news: &mut mpsc::Receiver<News>,
    changes: &watch::Sender<MapState>,
    wanted: &mut Wanted,
) {
    while let Some(news) = news.recv().await {
        if moves(&news, changes, wanted) {
            return;
        }
    }
    // The client is on its way out.
    std::future::pending::<()>().await;
}

/// Takes note of news; whether assets may have moved by them.
fn moves(news: &News, changes: &watch::Sender<MapState>, wanted: &mut Wanted) -> bool {
    let Some(told) = changes.borrow().told_by(news) else {
        return false;
    };
    wanted.raise(told.epoch);
    told.moves
}

/// Asks for an asset's route whenever the map has changed it, for as long as somebody listens.
pub(crate) async fn follow_route(
    shared: Weak<Shared>,
    asset: AssetUuid,
    mut map: watch::Receiver<MapState>,
    routes: watch::Sender<Route>,
) {
    let mut settled = None;
    loop {
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            () = routes.closed() => return,
        }
        // Most epochs of a change of owners concern no client.
        if settled.is_some() && settled == map.borrow_and_update().assignment() {
            continue;
        }
        let spread = rand::rng().random_range(0..=SPREAD_MS);
        tokio::time::sleep(Duration::from_millis(spread)).await;
        loop {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let answer = shared.route(&asset).await;
            drop(shared);
            match answer {
                Ok(route) if map.borrow().is_newer_than(&route) => {
                    debug!(%asset, "a router answers by a map of before; asking again");
                }
                Ok(route) => {
                    settled = map.borrow().assignment_of(&route);
                    routes.send_if_modified(|known| {
                        let differs = *known != route;
                        if differs {
                            *known = route;
                        }
                        differs
                    });
                    break;
                }
                Err(error) => debug!(%asset, %error, "the asset's route is not known anew yet"),
            }
            if routes.is_closed() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
