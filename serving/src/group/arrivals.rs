//! Which of a client's assets may arrive from which other groups' topics: of these the client has had the rest.

use std::sync::Arc;

use parking_lot::Mutex;

use super::seen::AssetTag;

/// Arrivals that a client is prepared for, each of them once. None, and no memory, for most clients.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals(Option<Arc<Mutex<Vec<Arrival>>>>);

type Arrival = (AssetTag, Arc<str>);

impl Arrivals {
    /// Of each asset from each topic.
    #[must_use]
    pub(super) fn of(assets: &[AssetTag], topics: &[Arc<str>]) -> Self {
        let all = assets
            .iter()
            .flat_map(|asset| topics.iter().map(|topic| (*asset, Arc::clone(topic))));
        Self(Some(Arc::new(Mutex::new(all.collect()))))
    }

    /// Whether the client is prepared for this one; it is not a second time.
    pub(super) fn take(&self, asset: &str, from: &str) -> bool {
        let Some(all) = &self.0 else {
            return false;
        };
        let (mut all, asset) = (all.lock(), AssetTag::of(asset));
        let found = all
            .iter()
            .position(|(it, topic)| *it == asset && **topic == *from);
        found.map(|at| all.swap_remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_arrival_is_prepared_for_once() {
        let arrivals = Arrivals::of(&[AssetTag::of("A")], &["t".into(), "u".into()]);
        let same = arrivals.clone();
        assert!(!arrivals.take("B", "t"));
        assert!(!arrivals.take("A", "v"));
        assert!(arrivals.take("A", "t"));
        assert!(!same.take("A", "t"));
        assert!(same.take("A", "u"));
        assert!(!Arrivals::default().take("A", "t"));
    }
}
