//! How far a client is in each of the topics that its assets have been in, here and elsewhere.

use std::sync::Arc;

use super::super::seen::{AssetTag, Seen};
use super::super::trail::{SEPARATOR, Trail, UNKNOWN};

/// Most topics of one client: of what its assets have had in more than that, it is told a gap.
const MAX_TOPICS: usize = 7;

/// The places of a client.
pub(super) struct Places {
    /// Here, if that is known.
    pub(super) here: Option<Seen>,
    pub(super) elsewhere: Vec<Seen>,
    topic: Arc<str>,
    /// Topics that its assets have been in while the client was away: where it begins there, is to be found.
    unknown: Vec<Arc<str>>,
    /// Topics of which no more can be had.
    left: Vec<Arc<str>>,
}

impl Places {
    /// Of a client of these assets that comes to the group of `topic`.
    pub(super) fn new(topic: Arc<str>, trail: Trail, assets: &[AssetTag]) -> Self {
        let mut places = Self {
            here: trail.here,
            elsewhere: trail.earlier,
            topic,
            unknown: Vec::new(),
            left: trail.forbidden,
        };
        for seen in &mut places.elsewhere {
            seen.keep(assets);
        }
        for topic in trail.unknown {
            places.add(topic);
        }
        places
    }

    /// All topics that the client has been in or is, and those that it is told a gap for.
    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        let elsewhere = self.elsewhere.iter().map(|seen| seen.base().topic());
        let others = self.unknown.iter().chain(&self.left);
        elsewhere
            .chain(others)
            .chain([&self.topic])
            .cloned()
            .collect()
    }

    /// Those elsewhere, and then the one here; as they are numbered.
    pub(super) fn all(&self) -> impl Iterator<Item = &Seen> {
        self.elsewhere.iter().chain(&self.here)
    }

    /// By its number.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Seen> {
        self.elsewhere.iter_mut().chain(&mut self.here).nth(at)
    }

    /// An asset has been in a topic while the client was away: it begins there, wherever that may be.
    pub(super) fn add(&mut self, topic: Arc<str>) {
        if !self.topics().contains(&topic) {
            self.unknown.push(topic);
        }
    }

    /// A topic of which nothing says where the client begins.
    pub(super) fn unknown(&self) -> Option<&Arc<str>> {
        self.unknown.first()
    }

    /// Where the client begins in [`Self::unknown`]; `None` if nothing says that. Whether it goes on there.
    pub(super) fn begin(&mut self, place: Option<Seen>) -> bool {
        let topic = self.unknown.remove(0);
        match place.filter(|_| self.elsewhere.len() < MAX_TOPICS) {
            Some(place) => {
                self.elsewhere.push(place);
                true
            }
            None => {
                self.left.push(topic);
                false
            }
        }
    }

    /// Whether there are topics of which nothing can be had.
    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Lets a topic go of which no more can be had.
    pub(super) fn leave(&mut self, at: usize) {
        let seen = self.elsewhere.remove(at);
        self.left.push(Arc::clone(seen.base().topic()));
    }

    /// With which the client goes on from all of them.
    pub(super) fn id(&self) -> String {
        let here = self.here.iter().map(Seen::to_string);
        let parts: Vec<String> = here.chain(self.others()).collect();
        parts.join(&SEPARATOR.to_string())
    }

    /// What stands in the id behind the place here.
    pub(super) fn behind(&self) -> String {
        self.others()
            .map(|part| format!("{SEPARATOR}{part}"))
            .collect()
    }

    fn others(&self) -> impl Iterator<Item = String> {
        let unknown = self.unknown.iter().map(|topic| format!("{UNKNOWN}{topic}"));
        self.elsewhere.iter().map(Seen::to_string).chain(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        Seen::parse(text).unwrap()
    }

    #[test]
    fn what_is_known_of_topics_is_what_the_id_says() {
        let trail = Trail {
            here: Some(seen("t/0/3")),
            earlier: vec![seen("a/0/1")],
            unknown: vec!["a".into()],
            forbidden: Vec::new(),
        };
        let mut places = Places::new("t".into(), trail, &[]);
        assert_eq!(places.unknown(), None);
        for topic in ["b", "c", "b"] {
            places.add(topic.into());
        }
        assert_eq!(places.id(), "t/0/3|a/0/1|?b|?c");
        assert_eq!(places.behind(), "|a/0/1|?b|?c");
        assert!(places.begin(Some(seen("b/0/7"))));
        assert!(!places.begin(None));
        assert_eq!(places.id(), "t/0/3|a/0/1|b/0/7");
        places.leave(1);
        let topics = ["a", "c", "b", "t"].map(Arc::from);
        assert_eq!(places.topics(), topics);
    }
}
