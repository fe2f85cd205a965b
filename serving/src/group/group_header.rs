//! The group that a request is for, as the router says it.
//!
//! An address may be another group's service by the time a request comes: that one has no event of the asset, and the
//! client would wait for ever. So the router names the group, and a service refuses what is not for it.

use axum::http::{HeaderMap, HeaderName};
use ofa_crds::GroupName;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use crate::http::ApiError;

/// The header with the group's name.
pub(crate) const GROUP_HEADER: HeaderName = HeaderName::from_static("ofa-group");

/// The header with the topics of other groups that the client may have events of, separated by commas; all without it.
pub(crate) const TOPICS_HEADER: HeaderName = HeaderName::from_static("ofa-topics");

/// Whether a client may have its asset's events of another group's topic.
pub(super) fn may_read(headers: &HeaderMap, topic: &str) -> bool {
    let Some(topics) = headers.get(TOPICS_HEADER) else {
        return true;
    };
    let mut allowed = topics.as_bytes().split(|byte| *byte == b',');
    allowed.any(|allowed| allowed == topic.as_bytes())
}

/// A group's name as a header can hold it.
pub(crate) fn in_header(group: &GroupName) -> String {
    utf8_percent_encode(group.as_str(), NON_ALPHANUMERIC).to_string()
}

/// Refuses a request for another group. Who asks without a router names none.
///
/// # Errors
/// 421 when the header names another group.
pub(super) fn check(headers: &HeaderMap, group: &GroupName) -> Result<(), ApiError> {
    let Some(named) = headers.get(GROUP_HEADER) else {
        return Ok(());
    };
    if percent_decode(named.as_bytes()).eq(group.as_str().bytes()) {
        return Ok(());
    }
    Err(ApiError::misdirected(format!(
        "this is the service of the group {group}; ask the router again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_groups_topics_are_read_for_those_who_may() {
        let mut headers = HeaderMap::new();
        assert!(may_read(&headers, "a"));
        headers.insert(TOPICS_HEADER, "a,b".parse().unwrap());
        assert!(may_read(&headers, "b"));
        assert!(!may_read(&headers, "c"));
        headers.insert(TOPICS_HEADER, "".parse().unwrap());
        assert!(!may_read(&headers, "a"));
    }

    #[test]
    fn a_request_for_another_group_is_refused() {
        let name = |name: &str| -> GroupName { name.parse().unwrap() };
        for group in ["Weld", "Halle 3/Süd", "a%b", "\u{1}"] {
            let group = name(group);
            let mut headers = HeaderMap::new();
            assert_eq!(check(&headers, &group), Ok(()));
            headers.insert(GROUP_HEADER, in_header(&group).parse().unwrap());
            assert_eq!(check(&headers, &group), Ok(()));
            assert!(check(&headers, &name("weld")).is_err());
        }
    }
}
