//! Questions of many subscriptions in one request, and the answer's parts back to each. Pure.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;
use ofa_crds::Cursor;
use ofa_crds::replay::{AssetAsk, ReplayAsk, ReplayEvent, ReplayLine, ReplayRequest};

use super::question::{Part, Question, Scope};
use crate::event::Event;
use crate::item::{Cause, Extent, Gap};
use crate::sequencer::Heads;

/// The request for some questions: those with one beginning come in one ask.
#[must_use]
pub(super) fn request<'a>(questions: impl Iterator<Item = &'a Question>) -> ReplayRequest {
    let mut by_beginning: BTreeMap<(&Heads, Option<&str>), Vec<AssetAsk>> = BTreeMap::new();
    for question in questions {
        match &question.scope {
            Scope::Asset(asset) => {
                let asks = by_beginning.entry((&question.since, None)).or_default();
                asks.push(AssetAsk {
                    asset: asset.clone(),
                    from: question.from.clone(),
                });
            }
            Scope::Shard(shard) => {
                by_beginning
                    .entry((&question.since, Some(shard)))
                    .or_default();
            }
        }
    }
    let asks = by_beginning
        .into_iter()
        .map(|((since, shard), assets)| ReplayAsk {
            since: since.clone(),
            shard: shard.map(str::to_owned),
            assets,
        });
    ReplayRequest {
        asks: asks.collect(),
    }
}

/// Who gets what of an answer.
pub(super) struct Deal {
    topic: String,
    by_asset: HashMap<String, Vec<usize>>,
    shards: Vec<usize>,
    from: Vec<ReplayAsk>,
    /// A gap whose state is still being told.
    gap: Option<(Gap, u32, u64)>,
}

impl Deal {
    #[must_use]
    pub(super) fn new<'a>(questions: impl Iterator<Item = &'a Question>) -> Self {
        let mut deal = Self {
            topic: String::new(),
            by_asset: HashMap::new(),
            shards: Vec::new(),
            from: Vec::new(),
            gap: None,
        };
        for (index, question) in questions.enumerate() {
            match &question.scope {
                Scope::Asset(asset) => {
                    deal.by_asset.entry(asset.clone()).or_default().push(index);
                }
                Scope::Shard(_) => deal.shards.push(index),
            }
            deal.from.push(ReplayAsk {
                since: question.since.clone(),
                shard: None,
                assets: vec![AssetAsk {
                    asset: String::new(),
                    from: question.from.clone(),
                }],
            });
        }
        deal
    }

    /// The parts that a line makes, each with the question it is for.
    pub(super) fn take(&mut self, line: ReplayLine, payload: Vec<u8>) -> Vec<(usize, Part)> {
        let mut parts = match line {
            ReplayLine::State(event) => {
                let event = self.event(event, payload);
                if let Some((gap, ..)) = &mut self.gap {
                    gap.state.push(event);
                }
                return Vec::new();
            }
            _ => self.take_gap(),
        };
        match line {
            ReplayLine::Heads { topic, next } => {
                self.topic.clone_from(&topic);
                let heads = |_| Part::Heads {
                    topic: topic.clone(),
                    next: next.clone(),
                };
                parts.extend(self.all(heads));
            }
            ReplayLine::Gap {
                asset,
                partition,
                first,
                last,
            } => {
                let extent = Extent::Possible {
                    topic: self.topic.clone(),
                    partition,
                    first,
                    last,
                };
                let gap = Gap {
                    asset,
                    extent,
                    cause: Cause::Retention,
                    state: Vec::new(),
                };
                self.gap = Some((gap, partition, last));
            }
            ReplayLine::Event(event) => {
                let (partition, offset) = (event.partition, event.offset);
                let event = self.event(event, payload);
                for index in self.of(Some(&event.asset), partition, offset) {
                    parts.push((index, Part::Event(event.clone())));
                }
            }
            ReplayLine::Reached { partition, next } => {
                let got_on =
                    |index: &usize| self.begins(*index, partition).is_some_and(|it| it < next);
                let questions = (0..self.from.len()).filter(got_on);
                parts.extend(questions.map(|index| (index, Part::Reached { partition, next })));
            }
            ReplayLine::End => parts.extend(self.all(|_| Part::End)),
            ReplayLine::State(_) => {}
        }
        parts
    }

    fn take_gap(&mut self) -> Vec<(usize, Part)> {
        let Some((gap, partition, last)) = self.gap.take() else {
            return Vec::new();
        };
        let hit = self.of(gap.asset.as_deref(), partition, last).into_iter();
        hit.map(|index| (index, Part::Gap(self.beyond_from(index, partition, &gap))))
            .collect()
    }

    /// A gap as it is for a question, which may have asked for the end of it only.
    fn beyond_from(&self, index: usize, partition: u32, gap: &Gap) -> Gap {
        let mut gap = gap.clone();
        if let (Extent::Possible { first, .. }, Some(from)) =
            (&mut gap.extent, self.begins(index, partition))
        {
            *first = from.max(*first);
        }
        gap
    }

    fn all(&self, part: impl Fn(usize) -> Part) -> Vec<(usize, Part)> {
        let questions = 0..self.from.len();
        questions.map(|index| (index, part(index))).collect()
    }

    /// The first offset of a partition that a question has asked for.
    fn begins(&self, index: usize, partition: u32) -> Option<u64> {
        let ask = &self.from[index];
        ask.from(partition, ask.assets.first())
    }

    /// The questions that have asked for an offset of an asset.
    fn of(&self, asset: Option<&str>, partition: u32, offset: u64) -> Vec<usize> {
        let of_asset = asset.and_then(|asset| self.by_asset.get(asset));
        let candidates = of_asset.into_iter().flatten().chain(&self.shards);
        let asked = |index: &&usize| {
            let begins = self.begins(**index, partition);
            begins.is_some_and(|from| from <= offset)
        };
        candidates.filter(asked).copied().collect()
    }

    fn event(&self, event: ReplayEvent, payload: Vec<u8>) -> Event {
        Event {
            cursor: Some(Cursor {
                topic: self.topic.clone(),
                partition: event.partition,
                offset: event.offset,
            }),
            prev: None,
            moved_from: event.moved_from,
            asset: event.asset,
            id: event.id,
            payload: Bytes::from(payload),
            received_at: Timestamp::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(asset: &str, since: u64, from: &[(u32, u64)]) -> Question {
        Question {
            scope: Scope::Asset(asset.to_owned()),
            since: [(0, since)].into(),
            from: from.iter().copied().collect(),
        }
    }

    fn event(asset: &str, offset: u64) -> ReplayLine {
        ReplayLine::Event(ReplayEvent {
            partition: 0,
            offset,
            asset: asset.to_owned(),
            moved_from: None,
            id: "x".to_owned(),
            bytes: 0,
        })
    }

    fn gap() -> ReplayLine {
        ReplayLine::Gap {
            asset: Some("A".to_owned()),
            partition: 0,
            first: 5,
            last: 8,
        }
    }

    fn indexes(parts: &[(usize, Part)]) -> Vec<usize> {
        parts.iter().map(|(index, _)| *index).collect()
    }

    #[test]
    fn questions_with_one_beginning_come_in_one_ask() {
        let questions = [
            question("A", 5, &[]),
            question("B", 5, &[(0, 9)]),
            question("C", 6, &[]),
        ];
        let request = request(questions.iter());
        assert_eq!(request.asks.len(), 2);
        assert_eq!(request.asks[0].assets.len(), 2);
        assert_eq!(request.asks[0].assets[1].from, [(0, 9)].into());
    }

    #[test]
    fn everybody_gets_what_he_asked_for() {
        let questions = [
            question("A", 5, &[]),
            question("A", 5, &[(0, 9)]),
            question("B", 6, &[]),
        ];
        let mut deal = Deal::new(questions.iter());
        let heads = ReplayLine::Heads {
            topic: "t".to_owned(),
            next: [(0, 20)].into(),
        };
        assert_eq!(indexes(&deal.take(heads, vec![])), [0, 1, 2]);
        assert_eq!(indexes(&deal.take(event("A", 7), vec![])), [0]);
        assert_eq!(indexes(&deal.take(event("A", 9), vec![])), [0, 1]);
        assert_eq!(indexes(&deal.take(event("C", 9), vec![])), [0; 0]);
        let reached = |next| ReplayLine::Reached { partition: 0, next };
        assert_eq!(indexes(&deal.take(reached(10), vec![])), [0, 1, 2]);
        assert_eq!(indexes(&deal.take(reached(9), vec![])), [0, 2]);
        assert_eq!(indexes(&deal.take(ReplayLine::End, vec![])), [0, 1, 2]);
    }

    #[test]
    fn nobody_has_reached_what_he_did_not_ask_for() {
        let ends_only = Question {
            since: Heads::new(),
            ..question("A", 0, &[])
        };
        let mut deal = Deal::new([ends_only, question("B", 6, &[])].iter());
        let reached = ReplayLine::Reached {
            partition: 0,
            next: 10,
        };
        assert_eq!(indexes(&deal.take(reached, vec![])), [1]);
    }

    #[test]
    fn a_gap_comes_with_its_state() {
        let questions = [question("A", 5, &[])];
        let mut deal = Deal::new(questions.iter());
        assert!(deal.take(gap(), vec![]).is_empty());
        let ReplayLine::Event(state) = event("A", 12) else {
            return;
        };
        assert!(
            deal.take(ReplayLine::State(state), b"{}".to_vec())
                .is_empty()
        );
        let parts = deal.take(event("A", 9), vec![]);
        let [(0, Part::Gap(gap)), (0, Part::Event(_))] = &parts[..] else {
            panic!("{parts:?}");
        };
        assert_eq!((gap.cause, gap.state.len()), (Cause::Retention, 1));
    }

    #[test]
    fn a_gap_is_told_to_who_asked_for_the_end_of_it_only() {
        let questions = [5, 7, 9].map(|since| question("A", since, &[]));
        let mut deal = Deal::new(questions.iter());
        assert!(deal.take(gap(), vec![]).is_empty());
        let parts = deal.take(ReplayLine::End, vec![]);
        let firsts = parts.iter().filter_map(|(index, part)| match part {
            Part::Gap(gap) => match gap.extent {
                Extent::Possible { first, .. } => Some((*index, first)),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(firsts.collect::<Vec<_>>(), [(0, 5), (1, 7)]);
    }
}
