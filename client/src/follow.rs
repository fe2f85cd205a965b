//! Notices changes of the shard map.

use std::ops::RangeInclusive;
use std::sync::Weak;
use std::time::Duration;

use ofa_crds::AssetUuid;
use rand::Rng;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::client::Shared;
use crate::router::{Route, Shards};

/// Each pause before the map is asked for again is as long as wanted or a quarter more or less, so that clients that began together do
/// not move together: a move costs a connection, and for a moment events that come twice.
const VARIATION: RangeInclusive<f64> = 0.75..=1.25;

/// How often every asset's route is asked for again from a router that does not tell about its map.
const ROUTE_POLL: Duration = Duration::from_secs(10);

/// After a change, each subscription asks within this time: not all in the same instant.
const SPREAD_MS: u64 = 500;

/// Rest before a route is asked for again after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Rest before the map is: a router that cannot be reached for a moment must not cost a client its time to move.
const MAP_RETRY: Duration = Duration::from_secs(2);

/// The newest answer of `/shards`, or a count that grows where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MapState {
    pub(crate) shards: Option<Shards>,
    blind_polls: u64,
}

/// Polls for as long as the client is held.
pub(crate) async fn follow_map(client: Weak<Shared>, changes: watch::Sender<MapState>) {
    let mut said = false;
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
        let pause = match answer {
            Ok(Some(shards)) => {
                said = false;
                changes.send_if_modified(|state| {
                    let differs = state.shards.as_ref() != Some(&shards);
                    if differs {
                        state.shards = Some(shards);
                    }
                    differs
                });
                interval
            }
            Ok(None) => {
                changes.send_modify(|state| state.blind_polls += 1);
                ROUTE_POLL
            }
            Err(error) => {
                if !said {
                    warn!(%error, "changes of the shard map are not seen for the time being");
                }
                said = true;
                MAP_RETRY.min(interval)
            }
        };
        let pause = pause.mul_f64(rand::rng().random_range(VARIATION));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changes.closed() => return,
        }
    }
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
