//! The replay service: what it answers, as it is decided when it gets the question.

use std::collections::VecDeque;

use super::{Defect, World};
use crate::event::Event;
use crate::replay::question::{Part, Question, Scope};

/// After how many events an answer says how far it has come.
const REACHED_EVERY: usize = 3;

impl World {
    pub(super) fn replay(&self, question: &Question) -> VecDeque<Part> {
        let events = self.asked_for(question);
        let heads = Part::Heads {
            topic: "t".to_owned(),
            next: self.ends.clone(),
        };
        let mut parts = VecDeque::from([heads]);
        for (partition, end) in &self.ends {
            let here =
                |event: &&Event| event.cursor.as_ref().map(|it| it.partition) == Some(*partition);
            for (number, event) in events.iter().filter(here).enumerate() {
                let next = event.cursor.as_ref().map_or(0, |it| it.offset + 1);
                let reached = Part::Reached {
                    partition: *partition,
                    next,
                };
                let told = number % REACHED_EVERY == 0;
                if told && self.defect == Some(Defect::ReachedBeyondAnswer) {
                    parts.extend([reached, Part::Event(event.clone())]);
                } else {
                    parts.push_back(Part::Event(event.clone()));
                    parts.extend(told.then_some(reached));
                }
            }
            if !question.since.is_empty() || question.from.contains_key(partition) {
                parts.push_back(Part::Reached {
                    partition: *partition,
                    next: *end,
                });
            }
        }
        parts.push_back(Part::End);
        parts
    }

    fn asked_for(&self, question: &Question) -> Vec<Event> {
        let asked = self.log.iter().filter(|event| is_asked(question, event));
        let mut events: Vec<Event> = asked.cloned().collect();
        events.sort_by_key(|event| event.cursor.as_ref().map(|it| (it.partition, it.offset)));
        for event in &mut events {
            event.prev = None;
        }
        match self.defect {
            Some(Defect::NewestFirst) => events.reverse(),
            Some(Defect::HeadBeyondAnswer) => {
                events.pop();
            }
            _ => {}
        }
        events
    }
}

fn is_asked(question: &Question, event: &Event) -> bool {
    let Some(cursor) = &event.cursor else {
        return false;
    };
    let of_scope = match &question.scope {
        Scope::Asset(asset) => *asset == event.asset,
        Scope::Shard(_) => true,
    };
    let from = question.from.get(&cursor.partition);
    let from = from.or_else(|| question.since.get(&cursor.partition));
    of_scope && from.is_some_and(|from| cursor.offset >= *from)
}
