//! Where a client has been, by the id that it comes with.
//!
//! An id is a [`Seen`] of one topic. While assets of a client go over from one group's topic to another's it is several,
//! separated by `|`: how far the client is in each of the topics of which more may come for it. A topic without a place is one that
//! an asset has been in while the client was away.

use axum::http::HeaderMap;
use ofa_crds::GroupName;

use super::group_header;
use super::seen::Seen;
use super::stream::Start;

/// Separates topics in an id.
pub(super) const SEPARATOR: char = '|';

/// Most topics in an id: an asset that sends nothing may move this often.
const MAX_TOPICS: usize = 8;

/// What an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    /// All of it is of this group's topic, or means nothing here.
    Here(Start),
    /// The client has watched other groups' topics, and may not have had all of them.
    From(Trail),
}

/// How far a client is in several topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail {
    /// In this group's, if it has been here.
    pub(super) here: Option<Seen>,
    /// In other groups'.
    pub(super) earlier: Vec<Seen>,
}

impl Came {
    /// By the client's Last-Event-ID.
    #[must_use]
    pub(super) fn from_last_event_id(id: Option<&str>, topic: &str) -> Self {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Self::Here(Start::Now);
        };
        let parts: Result<Vec<Seen>, _> = id.split(SEPARATOR).map(Seen::parse).collect();
        let Some(parts) = parts.ok().filter(|parts| parts.len() <= MAX_TOPICS) else {
            return Self::Here(Start::Unknown);
        };
        let (mut here, earlier): (Vec<Seen>, Vec<Seen>) = parts
            .into_iter()
            .partition(|seen| **seen.base().topic() == *topic);
        // An id is what a client says: it must not have any topic of Kafka read.
        let mut topics = earlier.iter().map(|seen| seen.base().topic());
        if !topics.all(|topic| GroupName::is_topic(topic)) {
            return Self::Here(Start::Unknown);
        }
        match (here.pop(), earlier.is_empty()) {
            (Some(seen), true) => Self::Here(Start::After(seen)),
            (here, _) => Self::From(Trail { here, earlier }),
        }
    }
}

impl Trail {
    /// Whether the client may have events of all these topics.
    #[must_use]
    pub(super) fn may_be_read(&self, headers: &HeaderMap) -> bool {
        let mut topics = self.earlier.iter().map(|seen| seen.base().topic());
        topics.all(|topic| group_header::may_read(headers, topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(id: Option<&str>) -> Came {
        Came::from_last_event_id(id, "t")
    }

    fn seen(text: &str) -> Seen {
        Seen::parse(text).unwrap()
    }

    #[test]
    fn an_id_tells_where_its_client_has_been() {
        assert_eq!(came(None), Came::Here(Start::Now));
        assert_eq!(came(Some("")), Came::Here(Start::Now));
        let after = Start::After(seen("t/0/4"));
        assert_eq!(came(Some("t/0/4")), Came::Here(after));
        let trail = |here: Option<&str>| {
            Came::From(Trail {
                here: here.map(seen),
                earlier: vec![seen("asset_stream_other_topic/0/4")],
            })
        };
        assert_eq!(came(Some("asset_stream_other_topic/0/4")), trail(None));
        assert_eq!(
            came(Some("t/0/7|asset_stream_other_topic/0/4")),
            trail(Some("t/0/7"))
        );
        assert_eq!(
            came(Some("asset_stream_other_topic/0/4|t/0/7")),
            trail(Some("t/0/7"))
        );
    }

    #[test]
    fn what_is_no_id_of_ours_means_nothing() {
        let many = ["asset_stream_o_topic/0/1"; 9].join("|");
        for id in [
            "asset_stream_other_topic/0/x",
            "t/0/4|",
            "|",
            &many,
            "salaries/0/4",
            "t/0/4|salaries/0/4",
        ] {
            assert_eq!(came(Some(id)), Came::Here(Start::Unknown), "{id}");
        }
    }
}
