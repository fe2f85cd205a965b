//! The native engine: one workload derives the streams of all groups, found by itself.

use async_trait::async_trait;
use ofa_crds::kafka::KafkaSettings;

use super::build;
use super::validate::ValidGroup;
use crate::controllers::conditions::{Outcome, of_instances};
use crate::controllers::{Context, kafka_connection};
use crate::engine::{Group, StreamEngine, Streams};
use crate::platform::{PlatformError, WorkloadId};

/// The names of all workloads that derive begin so.
const PREFIX: &str = "derive-";

/// The native engine for one resource.
pub(super) struct NativeEngine<'a> {
    pub(super) valid: &'a ValidGroup,
    pub(super) context: &'a Context<'a>,
    /// How the operator reaches Kafka.
    pub(super) kafka: &'a KafkaSettings,
}

#[async_trait]
impl StreamEngine for NativeEngine<'_> {
    async fn ensure(&self, groups: &[Group], _: &[Group]) -> Result<Streams, PlatformError> {
        let outcome = self.run().await?;
        let group = build::consumer_group(self.valid);
        let source = &self.valid.source_topic;
        let progress = self.context.control.progress(self.kafka, source, &group);
        Ok(Streams {
            outcome,
            planned: Vec::new(),
            lag: progress.map(|progress| progress.lag),
            consumer_groups: groups
                .iter()
                .map(|it| (it.name.clone(), group.clone()))
                .collect(),
            problems: Default::default(),
            // A group that has no assets any more gets no events.
            removed: true,
        })
    }

    async fn release(&self, _: &[Group]) -> Result<bool, PlatformError> {
        let mut gone = true;
        for id in own(self.valid, self.context).await? {
            gone &= self.context.platform.remove(&id).await?;
        }
        Ok(gone)
    }
}

impl NativeEngine<'_> {
    async fn run(&self) -> Result<Outcome, PlatformError> {
        let (valid, context) = (self.valid, self.context);
        let id = valid.workload_id();
        // What was asked for before under another level or value goes first, or both would write.
        let mut gone = true;
        let mut before = own(valid, context).await?;
        before.retain(|old| *old != id);
        for old in before {
            gone &= context.platform.remove(&old).await?;
        }
        if !gone {
            return Ok(Outcome::under_way(
                "Replacing",
                "what derived by the spec before is stopping",
            ));
        }
        let namespace = &valid.identity.namespace;
        let certificate =
            kafka_connection::has_client_certificate(&valid.kafka, namespace, context.platform)
                .await?;
        let workload = build::build(valid, context.settings, certificate);
        context.platform.ensure(&workload).await?;
        let Some(state) = context.platform.observe(&id).await? else {
            return Ok(Outcome::under_way(
                "Creating",
                "what derives is about to be created",
            ));
        };
        let outcome = of_instances(&state).unwrap_or_else(|| {
            Outcome::ready("all instances are ready; every event is written to its group's topic")
        });
        Ok(outcome.serving(state.ready() > 0).held_back(&state))
    }
}

/// Workloads that derive for a resource.
pub(super) async fn own(
    valid: &ValidGroup,
    context: &Context<'_>,
) -> Result<Vec<WorkloadId>, PlatformError> {
    let owner = valid.identity.owner("AssetGroup");
    let namespace = &valid.identity.namespace;
    let mut all = context.platform.owned(namespace, &owner).await?;
    all.retain(|id| id.name.starts_with(PREFIX));
    Ok(all)
}
