//! Which of two resources that would write the same topics may: only one of them, whatever their engines.

use ofa_crds::api::{AssetGroup, ConditionStatus, STALLED};

use super::validate::{ValidGroup, validate};
use crate::controllers::conditions::Outcome;
use crate::controllers::{Context, Identity};

/// The reason of a resource that derives nothing because another one does.
pub(super) const LEVEL_TAKEN: &str = "LevelTaken";

/// What is said where another resource derives the same.
pub(super) fn taken(
    group: &AssetGroup,
    valid: &ValidGroup,
    context: &Context<'_>,
) -> Option<Outcome> {
    let me = Identity::of(&group.metadata);
    let overlaps = |other: &&AssetGroup| {
        let it = Identity::of(&other.metadata);
        (it.namespace == me.namespace && it.name != me.name)
            && validate(other, context.settings).is_ok_and(|other| valid.overlaps(&other))
    };
    let mut others = context.asset_groups.iter().filter(overlaps);
    let other = others.find(|other| rank(other) > rank(group))?;
    Some(Outcome::stalled(
        LEVEL_TAKEN,
        format!(
            "AssetGroup {} derives groups of level {} from {} already, and every event would stand in their topics twice; keep one of \
             the two (one AssetGroup without spec.grouping.value serves every value of a level)",
            Identity::of(&other.metadata).name,
            valid.level,
            valid.source_topic
        ),
    ))
}

/// Who derives goes on; of those of whom nobody knows yet the older one begins. A deleted one counts until it is gone.
fn rank(group: &AssetGroup) -> (Standing, std::cmp::Reverse<(i64, String)>) {
    let meta = &group.metadata;
    let created = meta.creation_timestamp.as_ref();
    let age = created.map_or(0, |time| time.0.as_second());
    let name = meta.name.clone().unwrap_or_default();
    (standing(group), std::cmp::Reverse((age, name)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Was refused as it stands now.
    Refused,
    /// Its spec is newer than what is known of it.
    Unknown,
    /// May derive as it stands now.
    Derives,
}

fn standing(group: &AssetGroup) -> Standing {
    let Some(status) = &group.status else {
        return Standing::Unknown;
    };
    let refused = status.conditions.iter().any(|condition| {
        condition.kind == STALLED
            && condition.status == ConditionStatus::True
            && condition.reason == LEVEL_TAKEN
    });
    if status.observed_generation != group.metadata.generation {
        Standing::Unknown
    } else if refused {
        Standing::Refused
    } else {
        Standing::Derives
    }
}

#[cfg(test)]
mod tests {
    use ofa_crds::api::AssetGroupStatus;
    use serde_json::json;

    use super::*;

    fn group(name: &str, created: &str, status: &serde_json::Value) -> AssetGroup {
        let group = json!({
            "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "AssetGroup",
            "metadata": {"name": name, "namespace": "n", "generation": 2, "creationTimestamp": created},
            "spec": {"grouping": {"level": "line"}},
            "status": status,
        });
        serde_json::from_value(group).unwrap()
    }

    fn says(reason: &str, generation: i64) -> serde_json::Value {
        json!({"observedGeneration": generation, "conditions": [{"type": "Stalled", "status": "True", "reason": reason,
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    #[test]
    fn who_derives_goes_on_and_of_two_new_ones_the_older_begins() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let unseen = || serde_json::to_value(AssetGroupStatus::default()).unwrap();
        let (first, second) = (group("a", old, &unseen()), group("b", new, &unseen()));
        assert!(rank(&first) > rank(&second));
        let derives = group("b", new, &says("InstanceFails", 2));
        let moved_here = group("a", old, &says("InstanceFails", 1));
        assert!(rank(&derives) > rank(&first) && rank(&derives) > rank(&moved_here));
        let refused = group("a", old, &says(LEVEL_TAKEN, 2));
        let changed = group("b", new, &says("InstanceFails", 1));
        assert!(
            rank(&changed) > rank(&refused),
            "a change of the one that derives gives nothing away"
        );
    }
}
