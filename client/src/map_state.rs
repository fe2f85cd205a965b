//! What is known of the shard map, and when the router is to be asked for more. Pure.

use ofa_crds::shard_map::{Assignment, MapNotice};
use ofa_crds::subject;

use crate::router::{Route, Shards};

/// How often an answer by a map of before the one known or told of is not believed: that router reads the same topic as all others, which
/// takes it milliseconds, or as long as it is cut off. Believed it is in the end, since a pool may be made anew.
const ATTEMPTS: u32 = 10;

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
    shards: Option<Shards>,
    blind_polls: u64,
}

impl MapState {
    /// Takes in an answer, unless it is by a map of before and not to be believed yet.
    pub(crate) fn take_in(&mut self, shards: Shards, wanted: &mut Wanted) -> Taken {
        let is_met = wanted.is_met_by(shards.epoch);
        let is_older = self.epoch() > shards.epoch;
        let changes = (is_met || !is_older) && self.shards.as_ref() != Some(&shards);
        if changes {
            self.shards = Some(shards);
        }
        Taken { is_met, changes }
    }

    /// Takes note that a router does not tell of its map: anything may have changed.
    pub(crate) fn is_untold(&mut self) {
        self.blind_polls += 1;
        if let Some(known) = &mut self.shards {
            known.assignment = None;
        }
    }

    fn epoch(&self) -> u64 {
        self.shards.as_ref().map_or(0, |known| known.epoch)
    }

    /// Where clients are sent, where that is told.
    pub(crate) fn assignment(&self) -> Option<Assignment> {
        self.shards.as_ref()?.assignment
    }

    /// Whether a route is by a map of before: with several routers, the one that answers may be behind the one that told of the map.
    pub(crate) fn is_newer_than(&self, route: &Route) -> bool {
        route.epoch.is_some_and(|epoch| epoch < self.epoch())
    }

    /// The assignment that a route is part of; `None` where the route is by another map than the one known.
    pub(crate) fn assignment_of(&self, route: &Route) -> Option<Assignment> {
        let known = self.shards.as_ref()?;
        known
            .assignment
            .filter(|_| route.epoch == Some(known.epoch))
    }

    /// What these say that is not known yet.
    pub(crate) fn told_by(&self, news: &News) -> Option<Told> {
        let known = self.shards.as_ref()?;
        match news {
            News::Notice { subject, notice } => {
                let is_ours = |pool| subject::map_notice(pool) == *subject;
                let is_news =
                    known.pool.as_deref().is_some_and(is_ours) && notice.epoch > known.epoch;
                is_news.then_some(Told {
                    epoch: notice.epoch,
                    moves: known.assignment != Some(notice.assignment),
                })
            }
            News::Reconnected => Some(Told {
                epoch: known.epoch,
                moves: true,
            }),
        }
    }
}

/// What is told of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// The router is not to answer by an older one.
    pub(crate) epoch: u64,
    /// Assets may have moved, so that it is to be asked.
    pub(crate) moves: bool,
}

/// What came of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// It is by a map as new as any known or told of, or believed to be.
    pub(crate) is_met: bool,
    /// It says something else than the one before.
    pub(crate) changes: bool,
}

/// The newest epoch known or told of, and how often an answer by an older map is still not believed.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    epoch: u64,
    attempts: u32,
}

impl Wanted {
    /// Somebody tells of an epoch.
    pub(crate) fn raise(&mut self, epoch: u64) {
        if epoch > self.epoch {
            *self = Self::of(epoch);
        }
    }

    fn of(epoch: u64) -> Self {
        Self {
            epoch,
            attempts: ATTEMPTS,
        }
    }

    fn is_met_by(&mut self, epoch: u64) -> bool {
        if epoch < self.epoch && self.attempts > 0 {
            self.attempts -= 1;
            return false;
        }
        *self = Self::of(epoch);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "000000000000000a";
    const Y: &str = "000000000000000b";

    fn shards(epoch: u64, assignment: &str) -> Shards {
        Shards {
            pool: Some("factory".to_owned()),
            epoch,
            assignment: Some(assignment.parse().unwrap()),
            shards: Vec::new(),
            replay_url: None,
        }
    }

    fn route(epoch: Option<u64>) -> Route {
        Route {
            asset_id: "A".to_owned(),
            cluster_name: "C1".to_owned(),
            nats_url: "nats://h:4222".to_owned(),
            nats_urls: Vec::new(),
            subject: None,
            epoch,
            replay_url: None,
        }
    }

    fn notice(pool: &str, epoch: u64, assignment: &str) -> News {
        News::Notice {
            subject: subject::map_notice(pool),
            notice: MapNotice {
                epoch,
                assignment: assignment.parse().unwrap(),
            },
        }
    }

    #[test]
    fn who_is_told_of_a_map_asks_only_where_it_moves_assets_of_its_own_pool() {
        let (mut state, mut wanted) = (MapState::default(), Wanted::default());
        let told = |epoch, moves| Some(Told { epoch, moves });
        assert_eq!(state.told_by(&notice("factory", 2, Y)), None);
        assert_eq!(state.told_by(&News::Reconnected), None);
        assert!(state.take_in(shards(1, X), &mut wanted).changes);
        assert_eq!(state.told_by(&notice("factory", 2, Y)), told(2, true));
        assert_eq!(state.told_by(&notice("another", 2, Y)), None);
        // A change that was called off: a router that still tells of it is behind.
        assert_eq!(state.told_by(&notice("factory", 3, X)), told(3, false));
        state.take_in(shards(2, X), &mut wanted);
        assert_eq!(state.told_by(&notice("factory", 2, Y)), None, "late");
        assert_eq!(state.told_by(&News::Reconnected), told(2, true));
    }

    #[test]
    fn a_route_is_settled_only_by_the_map_that_it_is_of() {
        let (mut state, mut wanted) = (MapState::default(), Wanted::default());
        assert_eq!(state.assignment_of(&route(Some(4))), None);
        state.take_in(shards(4, X), &mut wanted);
        assert_eq!(state.assignment_of(&route(Some(4))), state.assignment());
        assert!(!state.is_newer_than(&route(Some(4))));
        // Another router is behind.
        assert!(state.is_newer_than(&route(Some(3))));
        // Another router is ahead: the change may be called off before anybody tells of it, and the digest be the same as before.
        assert_eq!(state.assignment_of(&route(Some(5))), None);
        assert!(state.take_in(shards(6, X), &mut wanted).changes);
        // Upstream's tells no epoch, and nothing of its map.
        assert_eq!(state.assignment_of(&route(None)), None);
        assert!(!state.is_newer_than(&route(None)));
        state.is_untold();
        assert_eq!(state.assignment(), None, "where clients are sent now");
    }

    #[test]
    fn a_router_that_is_behind_is_not_believed_at_first_but_not_doubted_for_ever() {
        let (mut state, mut wanted) = (MapState::default(), Wanted::default());
        state.take_in(shards(4, X), &mut wanted);
        let behind = Taken {
            is_met: false,
            changes: false,
        };
        wanted.raise(7);
        // What is told by others meanwhile, and late, does not make it less.
        wanted.raise(5);
        assert_eq!(state.take_in(shards(4, X), &mut wanted), behind);
        let on_the_way = state.take_in(shards(5, X), &mut wanted);
        assert!(!on_the_way.is_met && on_the_way.changes);
        assert_eq!(state.take_in(shards(4, X), &mut wanted), behind);
        let reached = state.take_in(shards(7, Y), &mut wanted);
        assert!(reached.is_met && reached.changes);
        for _ in 0..ATTEMPTS {
            assert_eq!(state.take_in(shards(1, X), &mut wanted), behind);
        }
        let anew = state.take_in(shards(1, X), &mut wanted);
        assert!(anew.is_met && anew.changes, "the pool was made anew");
    }
}
