//! Notices changes of the shard map: forwarders tell of them on NATS, and the router is asked from time to time, since what NATS
//! brings may be lost.

use std::ops::RangeInclusive;
use std::sync::Weak;
use std::time::Duration;

use ofa_crds::shard_map::MapNotice;
use ofa_crds::{AssetUuid, subject};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::client::Shared;
use crate::router::{Route, RouterError, Shards};

/// Each pause before the map is asked for again is as long as wanted or a quarter more or less, so that clients that began together do
/// not ask together.
const VARIATION: RangeInclusive<f64> = 0.75..=1.25;

/// How long it takes at most until a client that is told of a change asks: all are told in the same instant, and a move costs a
/// connection, and for a moment events that come twice. A third of the time that clients have to move, so that another attempt has its
/// time too.
const NOTICE_SPREAD: Duration = Duration::from_secs(10);

/// How often a router is asked again that answers by a map of before the one told of: it reads the same topic as the forwarders, which
/// takes it milliseconds, or as long as it is cut off.
const NOTICE_ATTEMPTS: u32 = 10;

/// How often every asset's route is asked for again from a router that does not tell about its map.
const ROUTE_POLL: Duration = Duration::from_secs(10);

/// After a change, each subscription asks within this time: not all in the same instant.
const SPREAD_MS: u64 = 500;

/// Rest before a route is asked for again after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Rest before the map is: a router that cannot be reached for a moment must not cost a client its time to move.
const MAP_RETRY: Duration = Duration::from_secs(2);

/// What a connection to a shard says of the map.
#[derive(Debug)]
pub(crate) enum News {
    /// A forwarder tells of a map, of the pool that the subject names.
    Notice { subject: String, notice: MapNotice },
    /// The connection is another: what was told meanwhile has not come.
    Reconnected,
}

/// The newest answer of `/shards`, and a count that grows where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MapState {
    pub(crate) shards: Option<Shards>,
    blind_polls: u64,
}

impl MapState {
    /// Takes in an answer. Whether assets may have moved.
    fn take_in(&mut self, shards: Shards) -> bool {
        let before = self.shards.replace(shards);
        let assignment = |it: &Shards| it.assignment;
        before.as_ref().map(assignment) != self.shards.as_ref().map(assignment)
    }

    /// Whether a route is by a map of before: with several routers, the one that answers may be behind the one that told of the map.
    fn is_newer_than(&self, route: &Route) -> bool {
        let known = self.shards.as_ref();
        known.is_some_and(|known| route.epoch.is_some_and(|epoch| epoch < known.epoch))
    }

    /// The epoch that the router is to be asked for because of these news; `None` where nothing has moved by them.
    fn wanted_epoch(&self, news: &News) -> Option<u64> {
        let known = self.shards.as_ref()?;
        match news {
            News::Notice { subject, notice } => {
                let is_ours = |pool| subject::map_notice(pool) == *subject;
                let concerns = known.pool.as_deref().is_some_and(is_ours)
                    && notice.epoch > known.epoch
                    && notice.assignment != known.assignment;
                concerns.then_some(notice.epoch)
            }
            News::Reconnected => Some(known.epoch),
        }
    }
}

/// An epoch that was told of, and how often it is still asked for.
struct Told {
    epoch: u64,
    attempts: u32,
}

/// Keeps the map's newest state for as long as the client is held.
pub(crate) async fn follow_map(
    client: Weak<Shared>,
    mut news: mpsc::Receiver<News>,
    changes: watch::Sender<MapState>,
) {
    let (mut said, mut told) = (false, None);
    loop {
        let Some(shared) = client.upgrade() else {
            return;
        };
        let answer = shared.router.shards().await;
        if let Ok(Some(shards)) = &answer {
            shared.replayer.set_url(shards.replay_url.as_deref());
        }
        let interval = shared.options.map_interval;
        drop(shared);
        if let Err(error) = &answer
            && !said
        {
            warn!(%error, "changes of the shard map are not seen for the time being");
        }
        said = answer.is_err();
        let pause = take_in(answer, &changes, &mut told, interval);
        let pause = pause.mul_f64(rand::rng().random_range(VARIATION));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            epoch = next_wanted(&mut news, &changes) => {
                told = Some(Told { epoch, attempts: NOTICE_ATTEMPTS });
                let spread = NOTICE_SPREAD.min(interval);
                tokio::time::sleep(spread.mul_f64(rand::random())).await;
            }
            () = changes.closed() => return,
        }
    }
}

/// Takes in an answer; how long to wait before the next question.
fn take_in(
    answer: Result<Option<Shards>, RouterError>,
    changes: &watch::Sender<MapState>,
    told: &mut Option<Told>,
    interval: Duration,
) -> Duration {
    match answer {
        Ok(Some(shards)) => {
            let is_behind = |told: &mut Told| {
                told.attempts = told.attempts.saturating_sub(1);
                shards.epoch < told.epoch && told.attempts > 0
            };
            let asks_again = told.as_mut().is_some_and(is_behind);
            changes.send_if_modified(|state| state.take_in(shards));
            if asks_again {
                return MAP_RETRY.min(interval);
            }
            *told = None;
            interval
        }
        Ok(None) => {
            changes.send_modify(|state| state.blind_polls += 1);
            ROUTE_POLL
        }
        Err(_) => MAP_RETRY.min(interval),
    }
}

/// Waits for news because of which the router is to be asked.
async fn next_wanted(news: &mut mpsc::Receiver<News>, changes: &watch::Sender<MapState>) -> u64 {
    while let Some(news) = news.recv().await {
        if let Some(epoch) = changes.borrow().wanted_epoch(&news) {
            return epoch;
        }
    }
    // The client is on its way out.
    std::future::pending().await
}

/// Asks for an asset's route whenever the map has changed, for as long as somebody listens.
pub(crate) async fn follow_route(
    shared: Weak<Shared>,
    asset: AssetUuid,
    mut map: watch::Receiver<MapState>,
    routes: watch::Sender<Route>,
) {
    loop {
        tokio::select! {
            changed = map.changed() => if changed.is_err() { return },
            () = routes.closed() => return,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(epoch: u64, assignment: &str) -> Shards {
        Shards {
            pool: Some("factory".to_owned()),
            epoch,
            assignment: assignment.parse().unwrap(),
            shards: Vec::new(),
            replay_url: None,
        }
    }

    const BEFORE: &str = "000000000000000a";
    const AFTER: &str = "000000000000000b";

    #[test]
    fn who_is_told_of_a_map_asks_only_where_it_moves_assets_of_its_own_pool() {
        let mut state = MapState::default();
        let wanted = |state: &MapState, pool: &str, epoch: u64, assignment: &str| {
            state.wanted_epoch(&News::Notice {
                subject: subject::map_notice(pool),
                notice: MapNotice {
                    epoch,
                    assignment: assignment.parse().unwrap(),
                },
            })
        };
        assert_eq!(wanted(&state, "factory", 2, AFTER), None, "nothing known");
        assert_eq!(state.wanted_epoch(&News::Reconnected), None);
        assert!(state.take_in(shards(1, BEFORE)));
        assert_eq!(wanted(&state, "factory", 2, AFTER), Some(2));
        assert_eq!(wanted(&state, "another", 2, AFTER), None);
        assert_eq!(wanted(&state, "factory", 2, BEFORE), None);
        assert!(!state.take_in(shards(2, BEFORE)));
        assert_eq!(wanted(&state, "factory", 2, AFTER), None, "told late");
        assert_eq!(state.wanted_epoch(&News::Reconnected), Some(2));
        assert!(state.take_in(shards(3, AFTER)));
    }

    #[test]
    fn a_route_by_a_map_of_before_is_not_taken() {
        let mut state = MapState::default();
        let route = |epoch| Route {
            asset_id: "A".to_owned(),
            cluster_name: "C1".to_owned(),
            nats_url: "nats://h:4222".to_owned(),
            nats_urls: Vec::new(),
            subject: None,
            epoch,
            replay_url: None,
        };
        assert!(!state.is_newer_than(&route(Some(0))));
        state.take_in(shards(7, AFTER));
        assert!(state.is_newer_than(&route(Some(6))));
        assert!(!state.is_newer_than(&route(Some(7))));
        assert!(!state.is_newer_than(&route(None)), "upstream's router");
    }

    #[test]
    fn a_router_that_is_behind_is_asked_again_soon_but_not_for_ever() {
        let interval = Duration::from_secs(20);
        let changes = watch::Sender::new(MapState::default());
        let mut told = None;
        let mut pause = |epoch: u64, wanted: Option<u64>| {
            if let Some(epoch) = wanted {
                let attempts = NOTICE_ATTEMPTS;
                told = Some(Told { epoch, attempts });
            }
            take_in(
                Ok(Some(shards(epoch, BEFORE))),
                &changes,
                &mut told,
                interval,
            )
        };
        assert_eq!(pause(1, None), interval);
        assert_eq!(pause(1, Some(2)), MAP_RETRY);
        assert_eq!(pause(2, None), interval);
        let soon = (0..20).filter(|turn| pause(2, (*turn == 0).then_some(9)) == MAP_RETRY);
        assert_eq!(soon.count() as u32, NOTICE_ATTEMPTS - 1);
    }
}
