//! How long members have had the newest map.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How far members are with the newest map, as this operator has seen it: it begins anew with the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    /// The epoch each router acts by.
    pub routers: BTreeMap<String, u64>,
    /// How long the newest map has been there.
    pub since_published: Duration,
    /// How long all routers have acknowledged it.
    pub routers_settled: Duration,
}

impl Default for Settling {
    /// Without routers there is nobody to wait for.
    fn default() -> Self {
        Self {
            routers: BTreeMap::new(),
            since_published: Duration::MAX,
            routers_settled: Duration::MAX,
        }
    }
}

/// Since when a map has been known, and since when all routers have acknowledged it.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenMap {
    epoch: u64,
    since: Instant,
    settled: Option<Instant>,
}

impl SeenMap {
    /// What is known at `now`, when the newest map is of `epoch` and routers have or have not acknowledged it.
    pub(super) fn update(
        known: Option<Self>,
        epoch: u64,
        all_acknowledged: bool,
        now: Instant,
    ) -> Self {
        let known = known.filter(|known| known.epoch == epoch);
        Self {
            epoch,
            since: known.map_or(now, |known| known.since),
            settled: all_acknowledged.then(|| known.and_then(|known| known.settled).unwrap_or(now)),
        }
    }

    /// How long ago that was.
    pub(super) fn settling(self, routers: BTreeMap<String, u64>) -> Settling {
        Settling {
            routers,
            since_published: self.since.elapsed(),
            routers_settled: self.settled.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_from_the_last_router_and_begins_anew_with_each_map() {
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let (first, second, third) = (at(0), at(1), at(2));
        let published = SeenMap::update(None, 1, false, first);
        assert_eq!(published.settled, None);
        let settled = SeenMap::update(Some(published), 1, true, second);
        assert_eq!((settled.since, settled.settled), (first, Some(second)));
        let later = SeenMap::update(Some(settled), 1, true, third);
        assert_eq!(later.settled, Some(second));
        let newcomer = SeenMap::update(Some(later), 1, false, third);
        assert_eq!(
            newcomer.settled, None,
            "a router that comes late begins anew"
        );
        let next = SeenMap::update(Some(later), 2, true, third);
        assert_eq!((next.since, next.settled), (third, Some(third)));
    }
}
