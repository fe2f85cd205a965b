//! What there is news of in Kafka, and which resources go by it: each hears of its own, and of nobody else's.

use std::collections::{BTreeMap, BTreeSet};

use ofa_crds::kafka::ControlState;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::Identity;

/// Pieces of news that may wait for one who listens: a burst of a thousand resources that are created together. Past it
/// everything is looked at, which is right and costs more.
const WAITING: usize = 4096;

/// What a resource may go by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The shard map of the pool `<namespace>.<name>`, and who acts by it.
    Pool(String),
    /// How far this consumer group is.
    Progress(String),
    /// The service of the group with this derived topic, and who needs it.
    Service(String),
    /// The groups of a level.
    Level {
        /// The UNS map.
        map_topic: String,
        /// The level.
        level: String,
    },
    /// How producers spread assets over the partitions of this topic.
    Partitioning(String),
}

/// A piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Of this.
    Of(Subject),
    /// Of anything: it was first read, or more came than was taken.
    OfAnything,
}

/// Where news is told.
#[derive(Debug, Clone)]
pub struct Board(broadcast::Sender<News>);

/// One who listens.
pub struct Listener(broadcast::Receiver<News>);

impl Default for Board {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl Board {
    /// Tells whoever listens.
    pub fn tell(&self, news: News) {
        // Without anybody who listens there is nobody to tell.
        let _ = self.0.send(news);
    }

    /// Everything that is told from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// The next piece of news; `None` when nobody is left to tell any.
    pub async fn next(&mut self) -> Option<News> {
        match self.0.recv().await {
            Ok(news) => Some(news),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(News::OfAnything),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Forgets what waits.
    pub fn forget(&mut self) {
        self.0 = self.0.resubscribe();
    }
}

/// A resource of one of our kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reader {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Reader {
    /// The resource of this kind and identity.
    #[must_use]
    pub fn of(kind: &str, identity: &Identity) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: identity.namespace.clone(),
            name: identity.name.clone(),
        }
    }
}

/// Which resources go by what. Whoever is about to read something says so first, so that no change falls between.
#[derive(Debug, Default)]
pub struct Readers(Mutex<BTreeMap<Subject, BTreeSet<Reader>>>);

impl Readers {
    /// From now on `reader` goes by these subjects too.
    pub fn add(&self, reader: &Reader, subjects: impl IntoIterator<Item = Subject>) {
        let mut all = self.0.lock();
        for subject in subjects {
            all.entry(subject).or_default().insert(reader.clone());
        }
    }

    /// The resource is gone.
    pub fn remove(&self, reader: &Reader) {
        self.0.lock().retain(|_, readers| {
            readers.remove(reader);
            !readers.is_empty()
        });
    }

    /// Resources of a kind that go by `subject`.
    #[must_use]
    pub fn of(&self, subject: &Subject, kind: &str) -> Vec<Reader> {
        let all = self.0.lock();
        let readers = all.get(subject).into_iter().flatten();
        readers
            .filter(|reader| reader.kind == kind)
            .cloned()
            .collect()
    }
}

/// What has changed on a control topic.
#[must_use]
pub fn of_control_topic(before: &ControlState, after: &ControlState) -> Vec<News> {
    if before.caught_up != after.caught_up {
        return vec![News::OfAnything];
    }
    let pools = changed(&before.maps, &after.maps)
        .chain(changed(&before.mixed, &after.mixed))
        .chain(changed(&before.acks, &after.acks).map(|(pool, _, _)| pool))
        .map(|pool| Subject::Pool(pool.clone()));
    let topics = changed(&before.groups, &after.groups)
        .chain(changed(&before.wanted, &after.wanted).map(|(topic, _)| topic))
        .map(|topic| Subject::Service(topic.clone()));
    let subjects: BTreeSet<Subject> = pools.chain(topics).collect();
    subjects.into_iter().map(News::Of).collect()
}

/// Keys whose values differ, or that only one of the two has.
fn changed<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let gone = before.keys().filter(|key| !after.contains_key(key));
    let new = after
        .iter()
        .filter(|(key, value)| before.get(key) != Some(value));
    gone.chain(new.map(|(key, _)| key))
}

#[cfg(test)]
mod tests {
    use ofa_crds::control::Ack;
    use ofa_crds::{ControlRole, MixedPartitions};

    use super::*;

    fn reader(name: &str) -> Reader {
        Reader {
            kind: "ForwarderPool".to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_change_is_news_of_its_own_pool_or_topic_alone() {
        let caught_up = ControlState {
            caught_up: true,
            ..ControlState::default()
        };
        let first = of_control_topic(&ControlState::default(), &caught_up);
        assert_eq!(first, [News::OfAnything]);

        let mut before = caught_up;
        let mixed = MixedPartitions {
            assets: 1,
            example: "a".to_owned(),
            partitions: [0, 1],
        };
        before.mixed.insert("n.gone".to_owned(), mixed.clone());
        before.mixed.insert("n.same".to_owned(), mixed);
        let mut after = before.clone();
        after.mixed.remove("n.gone");
        let member = |pool: &str| (pool.to_owned(), ControlRole::Router, "r".to_owned());
        after
            .acks
            .insert(member("n.acted"), Ack { epoch: 1, at_ms: 0 });
        after.wanted.insert(("t".to_owned(), "m".to_owned()), 1);
        let pool = |name: &str| News::Of(Subject::Pool(name.to_owned()));
        assert_eq!(
            of_control_topic(&before, &after),
            [
                pool("n.acted"),
                pool("n.gone"),
                News::Of(Subject::Service("t".to_owned()))
            ]
        );
        assert_eq!(of_control_topic(&after, &after), []);
    }

    #[test]
    fn only_those_hear_of_it_who_go_by_it() {
        let readers = Readers::default();
        let subject = |name: &str| Subject::Progress(name.to_owned());
        readers.add(&reader("a"), [subject("one")]);
        readers.add(&reader("b"), [subject("one"), subject("two")]);
        let of = |name: &str| readers.of(&subject(name), "ForwarderPool");
        assert_eq!(of("one"), [reader("a"), reader("b")]);
        assert_eq!(of("two"), [reader("b")]);
        assert_eq!(readers.of(&subject("one"), "AssetGroup"), []);
        readers.remove(&reader("b"));
        let of = |name: &str| readers.of(&subject(name), "ForwarderPool");
        assert_eq!((of("one"), of("two")), (vec![reader("a")], vec![]));
    }

    #[tokio::test]
    async fn more_news_than_is_taken_is_news_of_anything() {
        let board = Board::default();
        let mut listener = board.listen();
        for _ in 0..=WAITING {
            board.tell(News::Of(Subject::Pool("p".to_owned())));
        }
        assert_eq!(listener.next().await, Some(News::OfAnything));
        listener.forget();
        board.tell(News::Of(Subject::Pool("q".to_owned())));
        assert_eq!(
            listener.next().await,
            Some(News::Of(Subject::Pool("q".to_owned())))
        );
    }
}
