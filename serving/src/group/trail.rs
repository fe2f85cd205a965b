//! Where a client has been, by the id that it comes with.
//!
//! An id is a [`Seen`] of one topic. While assets of a client go over from one group's topic to another's it is several,
//! separated by `|`: how far the client is in each of the topics of which more may come for it. A topic behind a `?` is
//! one that an asset has been in while the client was away; where its place in that topic is told too, that is what counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::HeaderMap;
use ofa_crds::GroupName;

use super::group_header;
use super::seen::Seen;
use super::stream::Start;

/// Separates topics in an id.
pub(super) const SEPARATOR: char = '|';

/// Stands before a topic in which the client's place is to be found.
pub(super) const UNKNOWN: char = '?';

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
    /// Other groups' topics that an asset has been in while the client was away.
    pub(super) unknown: Vec<Arc<str>>,
    /// Topics that the client may not have events of.
    pub(super) forbidden: Vec<Arc<str>>,
}

impl Came {
    /// By the client's Last-Event-ID.
    #[must_use]
    pub(super) fn from_last_event_id(id: Option<&str>, topic: &str) -> Self {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Self::Here(Start::Now);
        };
        Self::from_parts(id, topic).unwrap_or(Self::Here(Start::Unknown))
    }

    /// `None` for what is no id of ours.
    fn from_parts(id: &str, own: &str) -> Option<Self> {
        let (mut here, mut earlier) = (None, Vec::new());
        let (mut known, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for part in id.split(SEPARATOR) {
            let (topic, is_new): (Arc<str>, bool) = match part.strip_prefix(UNKNOWN) {
                Some(topic) => (topic.into(), unknown.insert(topic.into())),
                None => {
                    let seen = Seen::parse(part).ok()?;
                    let topic = Arc::clone(seen.base().topic());
                    match *topic == *own {
                        true => here = Some(seen),
                        false => earlier.push(seen),
                    }
                    let is_new = known.insert(Arc::clone(&topic));
                    (topic, is_new)
                }
            };
            // An id is what a client says: it must not have any topic of Kafka read.
            let may_be = *topic == *own || GroupName::is_topic(&topic);
            if !may_be || !is_new || known.len() + unknown.len() > MAX_TOPICS {
                return None;
            }
        }
        let unknown: Vec<Arc<str>> = unknown.difference(&known).cloned().collect();
        Some(match here {
            Some(seen) if earlier.is_empty() && unknown.is_empty() => {
                Self::Here(Start::After(seen))
            }
            here => Self::From(Trail {
                here,
                earlier,
                unknown,
                forbidden: Vec::new(),
            }),
        })
    }
}

impl Trail {
    /// What of it the client may have events of.
    #[must_use]
    pub(super) fn allowed(mut self, headers: &HeaderMap) -> Self {
        let mut forbidden = Vec::new();
        let mut may_read = |topic: &Arc<str>| {
            let may = group_header::may_read(headers, topic);
            if !may {
                forbidden.push(Arc::clone(topic));
            }
            may
        };
        self.earlier.retain(|seen| may_read(seen.base().topic()));
        self.unknown.retain(|topic| may_read(topic));
        self.forbidden = forbidden;
        self
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
                unknown: Vec::new(),
                forbidden: Vec::new(),
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

    /// A client that is on its way from a topic may meet an asset that has come from there once more.
    #[test]
    fn a_place_that_is_told_need_not_be_found() {
        for (id, same) in [
            (
                "t/0/4|asset_stream_o_topic/0/4|?asset_stream_o_topic",
                "t/0/4|asset_stream_o_topic/0/4",
            ),
            ("t/0/4|?t", "t/0/4"),
        ] {
            assert_eq!(came(Some(id)), came(Some(same)), "{id}");
            assert_ne!(came(Some(id)), Came::Here(Start::Unknown), "{id}");
        }
    }

    #[test]
    fn a_topic_that_is_to_be_found_is_told_from_one_that_was_empty() {
        let trail = |id| match came(Some(id)) {
            Came::From(trail) => trail,
            Came::Here(start) => panic!("{start:?}"),
        };
        let found = trail("t/0/7|?asset_stream_o_topic");
        assert_eq!(found.unknown, ["asset_stream_o_topic".into()]);
        let empty = trail("t/0/7|asset_stream_o_topic");
        assert_eq!(empty.earlier, [seen("asset_stream_o_topic")]);
        let mut headers = HeaderMap::new();
        let topics = "asset_stream_p_topic,t".parse().unwrap();
        headers.insert(group_header::TOPICS_HEADER, topics);
        let allowed = found.allowed(&headers);
        assert_eq!(
            (allowed.unknown.len(), allowed.here),
            (0, Some(seen("t/0/7")))
        );
        assert_eq!(allowed.forbidden, ["asset_stream_o_topic".into()]);
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
            "t/0/4|?salaries",
            "t/0/4|?",
            "t/0/4|t/0/5",
            "t/0/4|?asset_stream_other_topic|?asset_stream_other_topic",
        ] {
            assert_eq!(came(Some(id)), Came::Here(Start::Unknown), "{id}");
        }
    }
}
