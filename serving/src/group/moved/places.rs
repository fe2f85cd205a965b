//! How far a client is in each of the topics that its assets have been in, here and elsewhere.

use std::sync::Arc;

use super::super::position::Position;
use super::super::seen::Seen;
use super::ids;

/// The places of a client.
pub(super) struct Places {
    /// Here, if that is known.
    pub(super) here: Option<Seen>,
    pub(super) elsewhere: Vec<Seen>,
    topic: Arc<str>,
    /// Topics of which no more can be had.
    left: Vec<Arc<str>>,
}

impl Places {
    /// Of a client that comes to the group of `topic`.
    pub(super) fn new(topic: Arc<str>, here: Option<Seen>, elsewhere: Vec<Seen>) -> Self {
        Self {
            here,
            elsewhere,
            topic,
            left: Vec::new(),
        }
    }

    /// All topics that the client has been in or is, and those that it is told a gap for.
    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        let elsewhere = self.elsewhere.iter().map(|seen| seen.base().topic());
        let all = elsewhere.chain(&self.left).chain([&self.topic]);
        all.cloned().collect()
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
    pub(super) fn add(&mut self, topic: &Arc<str>) {
        let nowhere = Position::new(Arc::clone(topic), Vec::new());
        self.elsewhere.push(nowhere.into());
    }

    /// Those of which something is known; all of them if that is none: the client was there before there was anything.
    pub(super) fn known(&self) -> Vec<&Seen> {
        let known: Vec<&Seen> = self.all().filter(|seen| is_known(seen)).collect();
        match known.is_empty() {
            true => self.all().collect(),
            false => known,
        }
    }

    /// The number of a topic of which nothing says where the client begins, while that can be found by what is known of others.
    pub(super) fn unknown(&self) -> Option<usize> {
        let any_known = self.all().any(is_known);
        let mut numbered = (0..).zip(&self.elsewhere);
        let unknown = numbered.find(|(_, seen)| any_known && !is_known(seen));
        unknown.map(|(at, _)| at)
    }

    /// Lets a topic go of which no more can be had.
    pub(super) fn leave(&mut self, at: usize) {
        let seen = self.elsewhere.remove(at);
        self.left.push(Arc::clone(seen.base().topic()));
    }

    /// With which the client goes on from all of them.
    pub(super) fn id(&self) -> String {
        ids::id(self.here.iter().chain(&self.elsewhere))
    }

    /// What stands in the id behind the place here.
    pub(super) fn behind(&self) -> String {
        let id = ids::id(self.elsewhere.iter());
        match id.is_empty() {
            true => id,
            false => format!("{}{id}", super::SEPARATOR),
        }
    }
}

fn is_known(seen: &Seen) -> bool {
    seen.partitions() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        Seen::parse(text).unwrap()
    }

    #[test]
    fn a_topic_is_begun_by_what_is_known_of_others() {
        let mut places = Places::new("t".into(), Some(seen("t/0/3")), vec![seen("a/0/1")]);
        assert!(places.unknown().is_none());
        places.add(&"b".into());
        assert_eq!(
            (places.id(), places.behind()),
            ("t/0/3|a/0/1|b".into(), "|a/0/1|b".into())
        );
        assert_eq!(places.unknown(), Some(1));
        assert_eq!(places.known(), [&seen("a/0/1"), &seen("t/0/3")]);
        places.leave(1);
        assert!(places.unknown().is_none());
        assert!(places.topics().contains(&"b".into()));
        let first = Places::new("t".into(), None, vec![seen("a")]);
        assert!(first.unknown().is_none());
    }
}
