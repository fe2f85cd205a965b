//! What a subscription has given its consumer, held against what there was.

use std::collections::{BTreeMap, HashMap};

use super::World;
use crate::item::Item;
use crate::replay::question::Scope;
use crate::sequencer::Heads;

impl World {
    /// What is said to be complete was received before.
    fn check_complete(
        &self,
        next: &Heads,
        received: &BTreeMap<u32, Vec<(String, u64)>>,
    ) -> Result<(), String> {
        let Scope::Asset(asset) = &self.scope else {
            return Err("a whole shard is never known to be complete".to_owned());
        };
        for event in self.log.iter().filter(|event| event.asset == *asset) {
            let cursor = event.cursor.as_ref().ok_or("an event without cursor")?;
            let below = next
                .get(&cursor.partition)
                .is_some_and(|next| cursor.offset < *next);
            let at = (asset.clone(), cursor.offset);
            let of_partition = received.get(&cursor.partition);
            if below && !of_partition.is_some_and(|events| events.contains(&at)) {
                return Err(format!("{cursor} is missing where all is complete"));
            }
        }
        Ok(())
    }

    pub(super) fn check(self) -> Result<(), String> {
        let mut received: BTreeMap<u32, Vec<(String, u64)>> = BTreeMap::new();
        let mut last: HashMap<String, u64> = HashMap::new();
        for item in &self.out {
            match item {
                Item::Event(event) => {
                    let at = event
                        .cursor
                        .as_ref()
                        .map_or((0, 0), |it| (it.partition, it.offset));
                    if last
                        .insert(event.asset.clone(), at.1)
                        .is_some_and(|last| last >= at.1)
                    {
                        return Err(format!("{at:?} comes twice or out of order"));
                    }
                    let of_partition = received.entry(at.0).or_default();
                    of_partition.push((event.asset.clone(), at.1));
                }
                Item::Gap(gap) => return Err(format!("announced as missing: {gap}")),
                Item::Complete { next } => self.check_complete(next, &received)?,
                _ => {}
            }
        }
        for events in received.values_mut() {
            events.sort_by_key(|(_, offset)| *offset);
        }
        for event in &self.log {
            let at = event
                .cursor
                .as_ref()
                .map_or((0, 0), |it| (it.partition, it.offset));
            let mine = match &self.scope {
                Scope::Asset(asset) => *asset == event.asset,
                Scope::Shard(_) => true,
            };
            let has = received.get(&at.0).is_some_and(|events| {
                events
                    .binary_search_by_key(&at.1, |(_, offset)| *offset)
                    .is_ok()
            });
            if mine != has {
                return Err(format!(
                    "{} at {at:?} is missing, or not asked for",
                    event.asset
                ));
            }
        }
        Ok(())
    }
}
