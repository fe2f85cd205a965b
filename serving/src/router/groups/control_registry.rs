//! Groups' services as the operator tells them on the control topic, and the way to have one woken.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use ofa_crds::control::StreamReader;
use ofa_crds::kafka::{ControlState, ControlTopic};
use ofa_crds::{GroupName, GroupService};
use reqwest::Url;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::GroupRegistry;
use super::registry::parse_url;

/// How long a request is held while its group's service starts: some seconds, more where an image is fetched first.
pub(super) const WAKE_PATIENCE: Duration = Duration::from_secs(30);

/// How long the word that a service is needed may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The services that the operator tells of.
#[derive(Clone)]
pub struct ControlRegistry {
    states: watch::Receiver<ControlState>,
    control: ControlTopic,
    level: String,
    member: String,
}

impl ControlRegistry {
    /// The services of the groups at `level`, for a router called `member`.
    #[must_use]
    pub fn new(
        states: watch::Receiver<ControlState>,
        control: ControlTopic,
        level: &str,
        member: &str,
    ) -> Self {
        Self {
            states,
            control,
            level: level.to_owned(),
            member: member.to_owned(),
        }
    }

    fn find(&self, group: &GroupName) -> Option<(String, GroupService)> {
        let state = self.states.borrow();
        let mut entries = state.groups.iter();
        let found = entries.find(|(_, entry)| entry.group == *group && entry.level == self.level);
        found.map(|(topic, entry)| (topic.clone(), entry.clone()))
    }

    async fn wake_and_wait(&self, group: &GroupName) -> Option<Url> {
        let (topic, entry) = self.find(group)?;
        if entry.url.is_none() && entry.on_demand {
            debug!(%group, "a sleeping group is asked for");
            let wanted = self.control.want(&topic, &self.member);
            match tokio::time::timeout(WRITE_TIMEOUT, wanted).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%group, %error, "the operator is not told to wake a group"),
                Err(_) => {
                    warn!(%group, "the operator is not told to wake a group: Kafka is silent");
                }
            }
        }
        let mut states = self.states.clone();
        let awake = states.wait_for(|state| url_of(state, &topic).is_some());
        let state = tokio::time::timeout(WAKE_PATIENCE, awake)
            .await
            .ok()?
            .ok()?;
        url_of(&state, &topic)
    }
}

fn url_of(state: &ControlState, topic: &str) -> Option<Url> {
    parse_url(state.groups.get(topic)?.url.as_deref()?).ok()
}

impl GroupRegistry for ControlRegistry {
    fn service(&self, group: &GroupName) -> Option<Url> {
        let (_, entry) = self.find(group)?;
        parse_url(entry.url.as_deref()?).ok()
    }

    fn reader(&self, group: &GroupName) -> Option<StreamReader> {
        self.find(group)?.1.reader
    }

    fn groups(&self) -> Vec<GroupName> {
        let state = self.states.borrow();
        let own = state.groups.values();
        own.filter(|entry| entry.level == self.level)
            .map(|entry| entry.group.clone())
            .collect()
    }

    fn wake<'a>(&'a self, group: &'a GroupName) -> BoxFuture<'a, Option<Url>> {
        self.wake_and_wait(group).boxed()
    }
}
