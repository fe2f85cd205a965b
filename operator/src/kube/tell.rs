//! What is said about a resource: in its status, in events, in the log.

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::events::{Event, EventType};
use ofa_crds::api::{Condition, ConditionStatus, STALLED, set_condition};
use serde_json::json;
use tracing::{info, warn};

use super::kind::Kind;
use super::shell::{Shell, ShellError};
use super::write::write_status;

/// Longest note of an event that the API takes.
const EVENT_NOTE: usize = 1024;

impl Shell {
    /// Writes a status that differs from the one read, and tells of what is new in it.
    pub(super) async fn say<K: Kind>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &K::Status,
    ) -> Result<(), ShellError> {
        if object.status() == Some(status) {
            return Ok(());
        }
        write_status(api, &object.name_any(), json!(status)).await?;
        let before = object.status().map_or(&[][..], K::conditions);
        if let Some(news) = news(before, K::conditions(status)) {
            self.tell(object, news).await;
        }
        Ok(())
    }

    pub(super) async fn say_refused<K: Kind>(
        &self,
        api: &Api<K>,
        object: &K,
        why: &str,
    ) -> Result<(), ShellError> {
        let mut status = object.status().cloned().unwrap_or_default();
        let condition = Condition {
            kind: "DeletionRefused".to_owned(),
            status: ConditionStatus::True,
            observed_generation: object.meta().generation,
            last_transition_time: now_text(),
            reason: "DeletionRefused".to_owned(),
            message: why.to_owned(),
        };
        set_condition(K::conditions_mut(&mut status), condition);
        self.say(api, object, &status).await
    }

    /// What cannot be read is said so on it, and the others go on.
    pub(super) async fn say_invalid<K: Kind>(
        &self,
        api: &Api<K>,
        name: &str,
        generation: Option<i64>,
        why: &str,
    ) -> Result<(), ShellError> {
        warn!(kind = %K::kind(&()), name, why, "cannot be read");
        let condition = |kind: &str, status| Condition {
            kind: kind.to_owned(),
            status,
            observed_generation: generation,
            last_transition_time: now_text(),
            reason: "Invalid".to_owned(),
            message: format!(
                "this operator cannot read it: {why}; correct it, or install the operator's own CRDs"
            ),
        };
        let status = json!({
            "observedGeneration": generation,
            "conditions": [
                condition("Ready", ConditionStatus::False),
                condition(STALLED, ConditionStatus::True),
            ],
        });
        write_status(api, name, status).await
    }

    async fn tell<K: Kind>(&self, object: &K, news: &Condition) {
        let warning = news.kind == STALLED || news.kind == "DeletionRefused";
        let (kind, name) = (K::kind(&()), object.name_any());
        info!(%kind, name, reason = news.reason, "{}: {}", news.kind, news.message);
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: news.reason.clone(),
            note: Some(news.message.chars().take(EVENT_NOTE).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // An event that is lost costs nothing but itself.
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event is lost");
        }
    }
}

fn now_text() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The one condition that tells the others' story, if it tells another one than before.
fn news<'a>(before: &[Condition], after: &'a [Condition]) -> Option<&'a Condition> {
    let holds = |condition: &&Condition| condition.status == ConditionStatus::True;
    let new = after.iter().rfind(holds)?;
    let old = before.iter().rfind(holds);
    let same = old.is_some_and(|old| (&old.kind, &old.reason) == (&new.kind, &new.reason));
    (!same).then_some(new)
}

#[cfg(test)]
mod tests {
    use ofa_crds::api::RECONCILING;

    use super::*;
    use crate::kube::pace::tests::condition;

    #[test]
    fn only_another_story_is_news() {
        use ConditionStatus::{False, True};
        let moving = [
            condition("Ready", False, "A"),
            condition(RECONCILING, True, "A"),
        ];
        let ready = [
            condition("Ready", True, "B"),
            condition(RECONCILING, False, "B"),
        ];
        assert_eq!(
            news(&[], &moving).map(|c| c.kind.as_str()),
            Some(RECONCILING)
        );
        assert_eq!(news(&moving, &moving), None);
        assert_eq!(
            news(&moving, &ready).map(|c| c.kind.as_str()),
            Some("Ready")
        );
    }
}
