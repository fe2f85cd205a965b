//! The services of groups: run, put to sleep, woken, and told of on the control topic.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ofa_crds::api::GroupState;
use ofa_crds::control::StreamReader;
use ofa_crds::kafka::{ControlState, KafkaSettings};
use ofa_crds::{GroupName, GroupService};

use super::build_service::{PORT, build, service_id};
use super::validate::ValidGroup;
use crate::controllers::conditions::of_instances;
use crate::controllers::control_plane::ControlPlaneError;
use crate::controllers::{Context, kafka_connection};
use crate::engine::Group;
use crate::platform::{PlatformError, WorkloadId};

/// How one group's service is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServiceState {
    pub(super) state: GroupState,
    /// What is wrong, and what to do.
    pub(super) problem: Option<String>,
    /// Whether a newer operator would run it in another way, and does not unasked.
    pub(super) held_back: bool,
}

/// The services of one resource.
pub(super) struct Services<'a> {
    pub(super) valid: &'a ValidGroup,
    pub(super) context: &'a Context<'a>,
    /// How the operator reaches Kafka.
    pub(super) kafka: &'a KafkaSettings,
    /// What stands on the control topic.
    pub(super) table: &'a ControlState,
    /// By which consumer groups the source is read for the groups' streams.
    pub(super) consumer_groups: &'a BTreeMap<GroupName, String>,
}

impl Services<'_> {
    /// Has the services of all groups as they should be. What goes wrong with one leaves the others.
    pub(super) async fn ensure(
        &self,
        groups: &[Group],
    ) -> Result<BTreeMap<GroupName, ServiceState>, PlatformError> {
        let (valid, platform) = (self.valid, self.context.platform);
        let namespace = &valid.identity.namespace;
        let certificate =
            kafka_connection::has_client_certificate(&valid.kafka, namespace, platform).await?;
        let mut states = BTreeMap::new();
        for group in groups {
            let state = self.ensure_one(group, certificate).await;
            let state = state.unwrap_or_else(|problem| ServiceState {
                state: GroupState::Starting,
                problem: Some(problem),
                held_back: false,
            });
            states.insert(group.name.clone(), state);
        }
        Ok(states)
    }

    async fn ensure_one(&self, group: &Group, certificate: bool) -> Result<ServiceState, String> {
        let id = service_id(self.valid, group);
        let replicas = self.valid.serving.replicas;
        if replicas == 0 {
            self.remove(&id, &group.topic).await?;
            return Ok(ServiceState::default());
        }
        if !self.is_awake(group) {
            return self.put_to_sleep(group, &id, certificate).await;
        }
        let settings = self.context.settings;
        let workload = build(self.valid, group, replicas, settings, certificate);
        let platform = self.context.platform;
        platform.ensure(&workload).await.map_err(text)?;
        let state = platform.observe(&id).await.map_err(text)?;
        let ready = state.as_ref().is_some_and(|state| state.ready() > 0);
        let trouble = state.as_ref().and_then(of_instances);
        let held_back = state.as_ref().is_some_and(|state| state.held_back);
        // One that is not ready yet is not asked, and one that was stays where it is.
        let url = match ready {
            true => Some(self.url(&id).await),
            false => None,
        };
        self.tell(group, url).await?;
        Ok(ServiceState {
            state: if ready {
                GroupState::Running
            } else {
                GroupState::Starting
            },
            problem: trouble
                .filter(|outcome| outcome.reason == "InstanceFails")
                .map(|outcome| outcome.message),
            held_back,
        })
    }

    /// Whether the service is to run: always, or while somebody has needed it within its idle time.
    fn is_awake(&self, group: &Group) -> bool {
        let serving = &self.valid.serving;
        if !serving.on_demand {
            return true;
        }
        let idle_ms = i64::from(serving.idle_seconds) * 1000;
        let now = Timestamp::now().as_millisecond();
        let last = self.table.last_wanted(&group.topic);
        last.is_some_and(|at| now - at < idle_ms)
    }

    /// Nobody is sent there any more before it ends.
    async fn put_to_sleep(
        &self,
        group: &Group,
        id: &WorkloadId,
        certificate: bool,
    ) -> Result<ServiceState, String> {
        self.tell(group, None).await?;
        let platform = self.context.platform;
        if platform.observe(id).await.map_err(text)?.is_some() {
            let settings = self.context.settings;
            let asleep = build(self.valid, group, 0, settings, certificate);
            platform.ensure(&asleep).await.map_err(text)?;
        }
        if self.table.last_wanted(&group.topic).is_some() {
            let forgotten = self.context.groups;
            forgotten
                .forget_wanted(self.kafka, &group.topic)
                .await
                .map_err(text)?;
        }
        Ok(ServiceState {
            state: GroupState::Asleep,
            ..ServiceState::default()
        })
    }

    async fn url(&self, id: &WorkloadId) -> String {
        let address = format!("{}:{PORT}", id.name);
        let platform = self.context.platform;
        format!("http://{}", platform.resolve(&id.namespace, &address).await)
    }

    async fn tell(&self, group: &Group, url: Option<String>) -> Result<(), String> {
        let service = GroupService {
            group: group.name.clone(),
            level: self.valid.level.clone(),
            url,
            on_demand: self.valid.serving.on_demand,
            reader: self.reader(group),
        };
        if self.table.groups.get(&group.topic) == Some(&service) {
            return Ok(());
        }
        let groups = self.context.groups;
        let told = groups.publish_service(self.kafka, &group.topic, Some(&service));
        told.await.map_err(text)
    }

    /// Who reads the source for a group, for those who tell how far it is behind. What was told before stays while ksqlDB says nothing.
    fn reader(&self, group: &Group) -> Option<StreamReader> {
        let Some(consumer_group) = self.consumer_groups.get(&group.name) else {
            return self.table.groups.get(&group.topic)?.reader.clone();
        };
        Some(StreamReader {
            consumer_group: consumer_group.clone(),
            topic: self.valid.source_topic.clone(),
        })
    }

    /// Removes the service of a group. Returns whether it is gone.
    pub(super) async fn remove_group(&self, group: &Group) -> Result<bool, String> {
        self.remove(&service_id(self.valid, group), &group.topic)
            .await
    }

    async fn remove(&self, id: &WorkloadId, topic: &str) -> Result<bool, String> {
        if self.table.groups.contains_key(topic) {
            let groups = self.context.groups;
            groups
                .forget_wanted(self.kafka, topic)
                .await
                .map_err(text)?;
            let told = groups.publish_service(self.kafka, topic, None);
            told.await.map_err(text)?;
        }
        let platform = self.context.platform;
        let mine = self.valid.identity.owner("AssetGroup");
        match platform.observe(id).await.map_err(text)? {
            Some(state) if state.owner == mine => platform.remove(id).await.map_err(text),
            _ => Ok(true),
        }
    }
}

trait Problem: std::fmt::Display {}
impl Problem for PlatformError {}
impl Problem for ControlPlaneError {}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn text(error: impl Problem) -> String {
    error.to_string()
}
