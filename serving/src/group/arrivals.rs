//! Which of a client's assets may arrive from which other groups' topics: of these the client has had all that comes before.

use std::sync::Arc;

use parking_lot::Mutex;

use super::seen::AssetTag;

/// Arrivals that a client is prepared for. None, and no memory, for most clients.
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

    /// Whether the client may have an asset's next event, which may be the first since it was in another group's topic. It is
    /// prepared for that until it has had an event.
    pub(super) fn take(&self, asset: &str, from: Option<&str>) -> bool {
        let Some(all) = &self.0 else {
            return from.is_none();
        };
        let mut all = all.lock();
        if all.is_empty() {
            return from.is_none();
        }
        let asset = AssetTag::of(asset);
        let prepared = |topic: &str| all.iter().any(|it| it.0 == asset && *it.1 == *topic);
        let may = from.is_none_or(prepared);
        if may {
            all.retain(|it| it.0 != asset);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_prepared_for_until_the_asset_has_sent() {
        let arrivals = Arrivals::of(
            &[AssetTag::of("A"), AssetTag::of("B")],
            &["t".into(), "u".into()],
        );
        let same = arrivals.clone();
        assert!(!arrivals.take("A", Some("v")));
        assert!(arrivals.take("A", Some("t")));
        assert!(!same.take("A", Some("t")));
        assert!(!same.take("A", Some("u")));
        assert!(same.take("A", None));
        assert!(arrivals.take("B", None));
        assert!(!arrivals.take("B", Some("t")));
        assert!(!Arrivals::default().take("A", Some("t")));
        assert!(Arrivals::default().take("A", None));
    }
}
